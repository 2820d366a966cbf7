import json
import random

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoImageProcessor, CLIPImageProcessorPil

from randlora.errors import ConfigError, DataError
from randlora.tasks import ClassificationData
from randlora.tasks.classification.images import ImageRows
from randlora.tasks.classification.labelled import load_training
from randlora.tasks.classification.preprocessing import Preprocessing

PLAIN = Preprocessing(
    CLIPImageProcessorPil(
        size={"shortest_edge": 8}, crop_size=8, resample=2, image_mean=[0.5] * 3, image_std=[0.25] * 3
    )
)


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


PROCESSORS = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 12}},
    "bit": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 20}, "crop_size": 16},
    "convnext, which resizes to 18": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 16}},
    "levit": {"feature_extractor_type": "LevitFeatureExtractor", "size": 14, "crop_size": 14},
    "mobilevit, from blue to red": {"image_processor_type": "MobileViTImageProcessor", "size": 20, "crop_size": 16},
    "efficientnet, to [-1, 1]": {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 16, "width": 16},
        "include_top": True,
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
    },
    "not resized": {"image_processor_type": "CLIPImageProcessor", "size": 16, "crop_size": 10, "do_resize": False},
    "not rescaled": {"image_processor_type": "ViTImageProcessor", "size": 16, "do_rescale": False},
}


@pytest.mark.parametrize("content", PROCESSORS.values(), ids=PROCESSORS)
def test_preprocessing_is_that_of_transformers(tmp_path, content):
    content = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "resample": 3, **content}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content), encoding="utf-8")
    processor, found = AutoImageProcessor.from_pretrained(tmp_path, backend="pil"), Preprocessing.of(str(tmp_path))
    for size in ((40, 31), (21, 64), (16, 16)):
        expected = processor(picture(*size), return_tensors="pt")["pixel_values"][0]
        assert torch.equal(found.plain(picture(*size)), expected)
        assert expected.shape == (3, *found.crop)
    grey = PIL.Image.new("RGB", found.crop[::-1], (10, 20, 30))  # of which every crop is the same
    plain, augmented = found.plain(grey), found.augmented(grey, random.Random(0))  # noqa: S311
    torch.testing.assert_close(augmented, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"image_processor_type": "DetrImageProcessor"},
            r"DetrImageProcessorPil.*3 x 800 x 1066 and 3 x 1066 x 800",
        ),
        ({"image_processor_type": "Qwen2VLImageProcessor"}, r"got 16 x 1176"),
        ({"image_processor_type": "ImageGPTImageProcessor"}, r"got ValueError: Clusters"),
        ({"image_processor_type": "Unknown"}, r"preprocessor_config\.json can be loaded"),
        ({"size": 8}, r"preprocessor_config\.json can be loaded"),
    ],
)
def test_what_makes_no_one_picture_of_an_image_is_refused(tmp_path, content, message):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as refused:
        Preprocessing.of(str(tmp_path))
    assert "\n" not in str(refused.value)
