"""Damaged data files: they are read, or refused in one line; nothing else comes out."""

import io
import json
import tempfile
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPImageProcessorPil

from randlora.errors import DataError
from randlora.tasks import ClassificationData
from randlora.tasks.classification.images import ImageRows
from randlora.tasks.classification.labelled import load_training, require_texts
from randlora.tasks.classification.preprocessing import Preprocessing

ROWS = [{"text": f'text "{row}",\nmore', "label": "ab"[row % 2]} for row in range(6)]
PLAIN = Preprocessing(
    CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size=8, resample=2, image_mean=[0.0] * 3, image_std=[1.0] * 3)
)


def whole_files():
    """One of each kind, by ending."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    table = datasets.Dataset.from_list(ROWS)
    parquet, csv = io.BytesIO(), io.BytesIO()
    table.to_parquet(parquet)
    table.to_csv(csv)
    files = {
        "csv": csv.getvalue(),
        "json": json.dumps(ROWS).encode(),
        "jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
        "parquet": parquet.getvalue(),
    }
    for kind in ("png", "jpeg", "gif", "tiff", "bmp", "webp", "ppm"):
        buffer = io.BytesIO()
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        PIL.Image.fromarray(pixels).save(buffer, kind, **({} if kind in ("gif", "bmp", "ppm") else {"exif": exif}))
        files[kind] = buffer.getvalue()
    return files


FILES = whole_files()
INSERTED = st.binary(max_size=4) | st.sampled_from(
    [b'"', b"\r", b",", b"[", b"{", b"\\ud800", b"\x00", b"1e999", b"NaN"]
)


@st.composite
def damaged(draw):
    """A file of some kind with a few bytes replaced, inserted or cut off."""
    kind = draw(st.sampled_from(sorted(FILES)))
    content = bytearray(FILES[kind])
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        content[start : start + draw(st.sampled_from([0, 1, 2, 1000]))] = draw(INSERTED)
    return kind, bytes(content)


def use(kind, path):
    if kind in ("csv", "json", "jsonl", "parquet"):
        require_texts(load_training(ClassificationData(train=str(path)), "text", seed=0)[0])
        return
    table = path.with_name("table.csv")
    table.write_text(f"image,label\n{path.name},a\n{path.name},b\n")
    ImageRows(load_training(ClassificationData(train=str(table)), "image", seed=0)[0], PLAIN)[0]


@pytest.mark.slow
@settings(max_examples=1500)
@given(damaged())
def test_a_damaged_file_is_read_or_refused_in_one_line(case):
    kind, content = case
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data.{kind}"
        path.write_bytes(content)
        try:
            use(kind, path)
        except DataError as error:
            assert str(error).isprintable()  # noqa: PT017 - most cases raise nothing


@pytest.mark.parametrize("kind", FILES)
def test_the_whole_files_are_read(tmp_path, kind):
    path = tmp_path / f"data.{kind}"
    path.write_bytes(FILES[kind])
    use(kind, path)
