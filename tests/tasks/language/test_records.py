"""Rows are read from every kind of file as they were written, nested ones too, and are named by their places."""

import csv
import gzip
import json
import tempfile
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.errors import DataError
from randlora.tasks.language.records import read_records

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
ROWS = st.lists(
    st.dictionaries(st.sampled_from(["messages", "tools", "text"]), VALUES, min_size=1), min_size=1, max_size=4
)


def read(folder, name, text):
    path = Path(folder) / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_records(str(path))


@given(rows=ROWS, lines=st.booleans(), ascii_only=st.booleans())
def test_json_rows_are_the_rows_written(rows, lines, ascii_only):
    each = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    text = "\n\n".join(each) if lines else json.dumps(rows, ensure_ascii=ascii_only, indent=1)
    with tempfile.TemporaryDirectory() as folder:
        records = read(folder, "data.json", text)
        assert [records[index] for index in range(len(records))] == rows
        assert set(records.columns) == {key for row in rows for key in row}
        last = f"line {2 * len(rows) - 1}" if lines else f"row {len(rows) - 1}"
        assert records.where(len(rows) - 1) == f"{Path(folder) / 'data.json'}: {last}"


def test_csv_and_parquet(tmp_path):
    rows = [{"id": "1", "prompt": 'a, "b"', "completion": "c\nd"}, {"id": "2", "prompt": "e", "completion": "f"}]
    with (tmp_path / "data.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "data.parquet")
    wanted = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
    for name in ("data.csv", "data.parquet"):
        records = read_records(str(tmp_path / name))
        assert [records[index] for index in range(2)] == wanted
        assert records.where(1) == f"{tmp_path / name}: row 1"


def test_nulls_that_a_table_sets_in_objects_are_no_values(tmp_path):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [{"name": "f"}]}]
    datasets.Dataset.from_list([{"messages": messages}]).to_parquet(tmp_path / "data.parquet")
    assert read_records(str(tmp_path / "data.parquet"))[0]["messages"] == messages


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.jsonl", '{"text": "a"}\n{"text": "b"\n', "data.jsonl: line 2: expected a JSON array"),
        ("data.jsonl", '{"text": "a"}\n[1]\n', r"data.jsonl: line 2: expected an object .* got \[1\]"),
        ("data.json", '[{"text": "a"},\n 3]', "data.json: row 1: expected an object with the columns as keys, got 3"),
        ("data.json", '{"text": "a", "text": "b"}', "line 1: .* the key 'text' twice"),
        ("data.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: expected text in UTF-8, got the byte 0xff"),
        ("data.jsonl", "[" * 100_000, "objects in objects without end"),
        ("data.jsonl", '{"text": ' + "9" * 5000 + "}", "line 1: expected a JSON array"),
        ("data.jsonl", gzip.compress(b"{}", mtime=0), "expected a file that is not compressed, got gzip"),
        ("data.json", "[]", "expected at least one row, got none"),
        ("data.csv", "prompt,completion\na\n", "line 2: expected 2 cells"),
        ("data.csv", b"\xff\xfep\x00,\x00", "line 1: expected text in UTF-8, got the byte 0xff"),
        ("data.csv", 'prompt,"completion\na,b\n', "line 1: expected CSV whose quoted cells end"),
        ("data.parquet", b"PAR1", "expected a readable parquet file"),
        ("data.txt", "a", "expected a file ending in .csv, .tsv, .json, .jsonl, .parquet"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path, name, text)
    assert "\n" not in str(raised.value)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl, which does not exist"):
        read_records(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="a folder"):
        read_records(str(tmp_path))


def test_the_hub_is_asked_for_a_split(monkeypatch):
    asked = []

    def load(name, subset, split, revision):
        asked.append((name, subset, split))
        return datasets.Dataset.from_list([{"text": "a"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    records = read_records("someone/something", "validation", "main")
    assert asked == [("someone/something", "main", "validation")]
    assert records.where(0) == "someone/something, split 'validation': row 0"


def test_a_hub_name_that_fails_is_one_line(monkeypatch):
    def load(name, subset, split, revision):
        raise ValueError("no such thing\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"someone/something: .* got ValueError: no such thing"):
        read_records("someone/something")
