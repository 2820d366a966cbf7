import json
import random

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoImageProcessor

from randlora.errors import ConfigError, DataError
from randlora.tasks import ClassificationData
from randlora.tasks.classification.images import ImageRows
from randlora.tasks.classification.labelled import load_training
from randlora.tasks.classification.preprocessing import Preprocessing

PLAIN = Preprocessing(resize=8, crop=(8, 8), resample=2, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def picture(width=12, height=8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(2):
            picture(seed=number).save(tmp_path / name / f"{number}.png")
    return tmp_path


def rows(source, **options):
    examples, *_ = load_training(ClassificationData(train=str(source)), "image", seed=0)
    return ImageRows(examples, PLAIN, **options)


def test_plain_is_resize_crop_and_normalize():
    image = picture(8, 8)
    expected = (np.asarray(image).transpose(2, 0, 1) / 255.0 - 0.5) / 0.25
    torch.testing.assert_close(PLAIN.plain(image), torch.tensor(expected, dtype=torch.float32))
    wide = PLAIN.plain(picture(12, 8))  # the middle 8 of 12 columns
    torch.testing.assert_close(wide, PLAIN.plain(picture(12, 8).crop((2, 0, 10, 8))))
    assert PLAIN.plain(picture(5, 31)).shape == (3, 8, 8)


def test_augmented_has_the_models_shape_and_depends_on_its_generator():
    image = picture(31, 17)
    first, again, other = (PLAIN.augmented(image, random.Random(seed)) for seed in (0, 0, 1))  # noqa: S311
    assert first.shape == (3, 8, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmentation_changes_with_the_epoch_and_row_only(folder):
    data = rows(folder, augment_seed=3)
    first = data[0]["pixel_values"]
    assert torch.equal(first, data[0]["pixel_values"])
    data.set_epoch(1)
    assert not torch.equal(first, data[0]["pixel_values"])
    data.set_epoch(0)
    assert torch.equal(first, data[0]["pixel_values"])


def test_folder_parquet_and_paths_in_a_csv_give_the_same_images(folder):
    paths = [folder / name / f"{number}.png" for name in ("cat", "dog") for number in range(2)]
    names = ["cat", "cat", "dog", "dog"]
    table = datasets.Dataset.from_dict({"image": [{"bytes": path.read_bytes()} for path in paths], "label": names})
    table.cast_column("image", datasets.Image()).to_parquet(folder / "train.parquet")
    lines = [f"{path.relative_to(folder)},{name}" for path, name in zip(paths, names, strict=True)]
    (folder / "train.csv").write_text("\n".join(["image,label", *lines]), encoding="utf-8")
    expected = [(item["pixel_values"], item["labels"]) for item in rows(folder)]
    for name in ("train.parquet", "train.csv"):
        found = rows(folder / name)
        assert all(torch.equal(found[row]["pixel_values"], pixels) for row, (pixels, _) in enumerate(expected))
        assert [found[row]["labels"] for row in range(4)] == [0, 0, 1, 1]


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_image_is_named(folder, content):
    broken = folder / "dog" / "1.png"
    data = rows(folder)
    broken.write_bytes(broken.read_bytes()[:60] if content is None else content)
    with pytest.raises(DataError, match=r"row 3 \(.*dog/1\.png\): expected an image that can be read"):
        data[3]


def test_a_folder_without_class_folders_is_refused(tmp_path):
    picture().save(tmp_path / "alone.png")
    with pytest.raises(DataError, match="one folder per class"):
        rows(tmp_path)


@pytest.mark.parametrize(
    ("content", "resize", "crop"),
    [
        ({"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 18}}, 20, (16, 18)),
        ({"size": 20, "crop_size": 16}, 20, (16, 16)),
        ({"size": {"height": 20, "width": 24}, "do_center_crop": False}, (20, 24), (20, 24)),
    ],
)
def test_preprocessing_reads_every_form_of_size(tmp_path, content, resize, crop):
    content |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content), encoding="utf-8")
    found = Preprocessing.of(str(tmp_path))
    assert (found.resize, found.crop, found.resample, found.mean) == (resize, crop, 2, (0.1, 0.2, 0.3))


def test_preprocessing_that_lacks_a_number(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"size": 8}', encoding="utf-8")
    with pytest.raises(ConfigError, match="image_mean"):
        Preprocessing.of(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 12}},
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 20},
            "crop_size": {"height": 16, "width": 16},
        },
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16}, "crop_size": 16},
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 16},
            "crop_pct": 0.875,
            "resample": 3,
        },
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "do_normalize": False},
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 16},
        {"feature_extractor_type": "DeiTFeatureExtractor", "size": 20, "crop_size": 16, "do_center_crop": True},
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 16, "crop_size": 16, "do_center_crop": True},
        {"feature_extractor_type": "LevitFeatureExtractor", "size": 14, "crop_size": {"height": 14, "width": 14}},
        {
            "image_processor_type": "EfficientNetImageProcessor",
            "size": {"height": 16, "width": 16},
            "include_top": True,
            "rescale_factor": 1 / 127.5,
            "rescale_offset": True,
        },
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "rescale_factor": 1 / 127.5},
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "do_rescale": False},
    ],
)
def test_preprocessing_is_that_of_transformers(tmp_path, content):
    content = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "resample": 3, **content}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content), encoding="utf-8")
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for size in ((40, 31), (21, 64), (16, 16)):
        image = picture(*size)
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(Preprocessing.of(str(tmp_path)).plain(image), expected, rtol=0, atol=2e-2)
