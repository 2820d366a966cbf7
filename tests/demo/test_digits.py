import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from randlora.demo.digits import split_digits, upscale, write_digits
from randlora.demo.glyphs import DIGIT_NAMES
from randlora.errors import OutputError


def test_split_is_seeded_disjoint_complete_and_stratified():
    train, test = split_digits(seed=3)
    assert np.intersect1d(train, test).size == 0
    np.testing.assert_array_equal(np.union1d(train, test), np.arange(1797))
    np.testing.assert_array_equal(split_digits(seed=3)[1], test)
    assert not np.array_equal(split_digits(seed=4)[1], test)
    labels = load_digits().target
    share = np.bincount(labels[test]) / np.bincount(labels)
    np.testing.assert_allclose(share, 0.25, atol=0.01)


def test_upscaling_keeps_ink_light_and_paper_dark():
    scan = load_digits().images[0]
    image = upscale(scan, 16)
    assert image.shape == (16, 16)
    small = np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BOX), dtype=float)
    assert np.corrcoef(small.ravel(), scan.ravel())[0, 1] > 0.95


def test_files_hold_images_and_named_labels(tmp_path):
    files = write_digits(tmp_path / "digits", size=16)
    rows = {path.stem: datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache")) for path in files}
    assert rows["train"].num_rows + rows["test"].num_rows == 1797
    assert rows["test"].features["label"].names == list(DIGIT_NAMES)
    _, test = split_digits()
    assert rows["test"]["label"] == load_digits().target[test].tolist()
    np.testing.assert_array_equal(np.asarray(rows["test"][0]["image"]), upscale(load_digits().images[test[0]], 16))
    written = files.train.stat().st_mtime_ns
    assert write_digits(tmp_path / "digits", size=16).train.stat().st_mtime_ns == written


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files"):
        write_digits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
