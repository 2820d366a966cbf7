"""Which folders are classes and which files their images, and how paths are read."""

import os

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from transformers import CLIPImageProcessorPil

from randlora.errors import DataError
from randlora.tasks import ClassificationData
from randlora.tasks.classification.images import ImageRows
from randlora.tasks.classification.labelled import load_training, require_texts
from randlora.tasks.classification.preprocessing import LARGEST, Preprocessing

PLAIN = Preprocessing(
    CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size=8, resample=2, image_mean=[0.0] * 3, image_std=[1.0] * 3)
)
COLOURS = {"cat": 255, "dog": 0}


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images each: white cats and black dogs."""
    for name, level in COLOURS.items():
        (tmp_path / "train" / name).mkdir(parents=True)
        for file in ("0.png", "1.PNG"):
            PIL.Image.new("L", (8, 8), level).save(tmp_path / "train" / name / file)
    return tmp_path / "train"


def training(source, **options):
    return load_training(ClassificationData(train=str(source), **options), "image", seed=0)[::2]


def levels(source):
    examples, _ = training(source)
    return [row["pixel_values"].mean().item() for row in ImageRows(examples, PLAIN)]


def test_what_tools_leave_behind_is_no_class_and_no_image(folder):
    for name in (".ipynb_checkpoints", "__MACOSX", "._cat", "@eaDir", ".git"):
        (folder / name).mkdir()
        PIL.Image.new("L", (8, 8)).save(folder / name / "copy.png")
    (folder / "cat" / ".ipynb_checkpoints").mkdir()
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (folder / "cat" / name).write_bytes(b"nothing")
    (folder / "README.md").write_text("words")
    examples, names = training(folder)
    assert names == ["cat", "dog"]
    assert len(examples) == 4
    assert levels(folder) == [1, 1, 0, 0]


def test_class_names_that_are_numbers_are_ordered_as_numbers(folder):
    (folder / "cat").rename(folder / "10")
    (folder / "dog").rename(folder / "9")
    assert training(folder)[1] == ["9", "10"]
    assert levels(folder) == [1, 1, 0, 0]


@pytest.mark.parametrize("kind", ["folder", "images inside", "dead link", "pipe", "image-like folder", "circle"])
def test_a_class_that_holds_something_else_is_refused(folder, kind):
    cat = folder / "cat"
    if kind == "folder":
        (cat / "siamese").mkdir()
    elif kind == "images inside":
        (folder / "bird" / "owl").mkdir(parents=True)
        PIL.Image.new("L", (8, 8)).save(folder / "bird" / "owl" / "0.png")
    elif kind == "dead link":
        (cat / "2.png").symlink_to(folder / "nowhere.png")
    elif kind == "pipe":
        os.mkfifo(cat / "2.png")
    elif kind == "image-like folder":
        (cat / "2.png").mkdir()
    else:
        (cat / "again").symlink_to(folder)
    with pytest.raises(DataError, match="bird: expected" if kind == "images inside" else r"cat(/2\.png)?: expected"):
        training(folder)


def test_a_class_without_images_is_refused_and_not_dropped(folder):
    (folder / "bird").mkdir()
    (folder / "bird" / "0.heic").write_bytes(b"something")
    with pytest.raises(DataError, match=r"bird: expected images of a class, ending in .*\.png.*got none"):
        training(folder)


def test_links_to_images_and_classes_are_followed(folder, tmp_path):
    (folder / "cat").rename(tmp_path / "elsewhere")
    (folder / "cat").symlink_to(tmp_path / "elsewhere")
    (folder / "dog" / "2.png").symlink_to(folder / "dog" / "0.png")
    assert levels(folder) == [1, 1, 0, 0, 0]


def test_names_of_images_need_not_be_text_but_those_of_classes(folder):
    for name in (b"caf\xe9.png", b"new\nline.png", b"[1]*.png"):
        PIL.Image.new("L", (8, 8), 255).save(folder / "cat" / os.fsdecode(name))
    assert levels(folder) == [1, 1, 1, 1, 1, 0, 0]
    (folder / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"broken")
    examples, _ = training(folder)
    with pytest.raises(DataError, match=r"cat/caf\\udce9\.png\): expected an image"):
        [ImageRows(examples, PLAIN)[row] for row in range(7)]
    (folder / "dog").rename(folder / os.fsdecode(b"d\xf6g"))
    with pytest.raises(DataError, match=r"names in UTF-8, got d\\udcf6g"):
        training(folder)


def test_a_tables_paths_are_relative_to_the_table_and_not_to_the_working_directory(folder, monkeypatch):
    (folder / "train.csv").write_text("image,label\ncat/0.png,cat\ndog/0.png,dog\n")
    other = folder.parent / "other"
    for name, level in COLOURS.items():
        (other / name).mkdir(parents=True)
        PIL.Image.new("L", (8, 8), 255 - level).save(other / name / "0.png")
    monkeypatch.chdir(other)
    assert levels(folder / "train.csv") == [1, 0]
    assert levels("../train/train.csv") == [1, 0]
    assert levels("../train") == [1, 1, 0, 0]
    assert levels(".") == [0, 1]
    (folder / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match=r"row 0 \(cat/0\.png\): .*nothing lies there"):
        levels(folder / "train.csv")


def test_encoded_images_in_a_column_of_bytes(folder):
    encoded = [(folder / name / "0.png").read_bytes() for name in COLOURS]
    datasets.Dataset.from_dict({"image": encoded, "label": list(COLOURS)}).to_parquet(folder / "a.parquet")
    assert levels(folder / "a.parquet") == [1, 0]


def test_a_column_of_something_else_is_refused(folder):
    datasets.Dataset.from_dict({"image": [1, 2], "label": list(COLOURS)}).to_parquet(folder / "a.parquet")
    with pytest.raises(DataError, match=r"row 0: .*neither an image nor a path"):
        levels(folder / "a.parquet")


def test_the_row_named_is_that_of_the_file_after_a_draw(folder):
    (folder / "a.csv").write_text("image,label\n" + "cat/0.png,cat\n" * 9 + "nowhere.png,dog\n")
    examples, _ = training(folder / "a.csv", shots=1)
    with pytest.raises(DataError, match=r"row 9 \(nowhere\.png\)"):
        ImageRows(examples, PLAIN)[1]


def test_images_are_no_texts(folder):
    examples, *_ = load_training(ClassificationData(train=str(folder)), "text", seed=0)
    with pytest.raises(DataError, match=r"expected a text, got an image"):
        require_texts(examples)


def test_an_image_that_would_fill_the_memory_when_resized_is_refused(folder):
    PIL.Image.new("L", (LARGEST // 64 + 1, 1)).save(folder / "cat" / "0.png")
    with pytest.raises(DataError, match=r"row 0 .*too long and narrow"):
        levels(folder)


def test_turned_photographs_give_the_tensor_of_upright_ones(folder):
    upright = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    upright.save(folder / "cat" / "0.png")
    upright.transpose(PIL.Image.Transpose.ROTATE_90).save(folder / "cat" / "1.PNG", exif=exif)
    rows = ImageRows(training(folder)[0], PLAIN)
    assert torch.equal(rows[0]["pixel_values"], rows[1]["pixel_values"])
