"""What is written is what is read, from every kind of data file; what cannot be read is named with its line."""

import csv
import gzip
import io
import json
import os
import socket
import tempfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.errors import DataError
from randlora.tasks import ClassificationData
from randlora.tasks import parquet as parquet_reader
from randlora.tasks.classification.labelled import load_labelled, load_training
from randlora.tasks.rows import check_source, load_rows

COLUMNS = ("text", "label")
STRINGS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
TABLES = st.lists(st.tuples(STRINGS, STRINGS), min_size=1, max_size=6)


def read(path):
    table = load_rows(str(path), split="train", columns=COLUMNS)
    return list(zip(table["text"], table["label"], strict=True))


def labels_of(path):
    return load_training(ClassificationData(train=str(path)), "text", seed=0)[2]


@given(rows=TABLES, quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), end=st.sampled_from(["\n", "\r\n"]))
def test_csv_cells_are_the_strings_written(rows, quoting, end):
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    # An older csv module leaves a carriage return without quotes where lines end in a line feed.
    writer.writerows([COLUMNS, *([cell.replace("\r", "\n") for cell in row] for row in rows)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes(text.getvalue().encode())
        assert read(path) == [tuple(cell.replace("\r", "\n") for cell in row) for row in rows]


@given(rows=TABLES, lines=st.booleans(), ascii_only=st.booleans())
def test_json_strings_are_the_strings_written(rows, lines, ascii_only):
    records = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    one = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    text = "\n".join(one) if lines else json.dumps(records, ensure_ascii=ascii_only, indent=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        path.write_bytes(text.encode())
        assert read(path) == rows


@pytest.mark.parametrize("name", ["data[1].csv", "data*.csv", "data?.csv", "data{a,b}.csv", "DATA.CSV", "**.csv"])
def test_a_file_is_read_by_its_name_and_not_as_a_pattern(tmp_path, name):
    for other in ("data1.csv", "data.csv", "dataa.csv"):
        (tmp_path / other).write_text("text,label\nwrong,x\n")
    (tmp_path / name).write_text("text,label\nright,x\n")
    assert read(tmp_path / name) == [("right", "x")]


@pytest.mark.parametrize(
    "labels",
    [
        ["01", "1"],
        ["TRUE", "True", "true"],
        ["1000", "1E3"],
        ["2024-01-01", "2024-1-1"],
        ["NA", "NaN", "nan", "null"],
        ["0.5", ".5", "0.50"],
        [" a", "a"],
    ],
)
def test_labels_of_a_csv_are_classes_as_written(tmp_path, labels):
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *(f"7,{label}" for label in labels)]))
    assert sorted(labels_of(path)) == sorted(labels)
    assert read(path) == [("7", label) for label in labels]


def test_a_file_replaced_under_the_same_time_and_size_is_read_anew(tmp_path):
    path = tmp_path / "data.csv"
    for text in ("first", "other"):
        path.write_text(f"text,label\n{text},x\n")
        os.utime(path, ns=(10**18, 10**18))
        assert read(path) == [(text, "x")]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["1", "01", "2"], ["01", "1", "2"]),
        (["10.0", "9.5"], ["9.5", "10.0"]),
        (["9" * 5000, "1" + "0" * 5000], ["9" * 5000, "1" + "0" * 5000]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["b", "B", "a", "ä"], ["B", "a", "b", "ä"]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_numbers_are_ordered_by_value_and_all_else_by_code_point(tmp_path, names, order, kind):
    path = tmp_path / f"data.{kind}"
    if kind == "csv":
        path.write_text("\n".join(["text,label", *(f"t,{name}" for name in names)]), encoding="utf-8")
    else:
        path.write_text("\n".join(json.dumps({"text": "t", "label": name}) for name in names), encoding="utf-8")
    assert labels_of(path) == order


def test_json_numbers_and_truth_values_are_labels_and_texts_as_written(tmp_path):
    path = tmp_path / "data.jsonl"
    long = "9" * 6000
    path.write_text(
        "\n".join(f'{{"text": {text}, "label": {text}}}' for text in ("1", '"1"', "1.0", "1e3", "true", long))
    )
    assert [label for _, label in read(path)] == ["1", "1", "1.0", "1e3", "true", long]


@pytest.mark.parametrize("train", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("test", ["csv", "jsonl", "parquet"])
def test_labels_compare_between_kinds_of_files(tmp_path, train, test):
    records = [{"text": "a", "label": 10}, {"text": "b", "label": 9}]
    (tmp_path / "data.csv").write_text("text,label\na,10\nb,9\n")
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, records)))
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "data.parquet")
    data = ClassificationData(train=str(tmp_path / f"data.{train}"), test=str(tmp_path / f"data.{test}"))
    *_, names = load_training(data, "text", seed=0)
    assert names == ["9", "10"]
    assert load_labelled(data.test, "test", data, "text", lambda: names).labels == [1, 0]


@pytest.mark.parametrize(
    ("array", "labels"),
    [
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(["b", "a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array([3, 200, 3], pa.uint8()), ["3", "200"]),
        (pa.array([True, False, True]), ["false", "true"]),
    ],
)
def test_parquet_columns_of_many_types_are_labels(tmp_path, array, labels):
    pq.write_table(pa.table({"label": array, "other": [1, 2, 3], "text": ["x", "y", "z"]}), tmp_path / "a.parquet")
    assert labels_of(tmp_path / "a.parquet") == labels


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1.0, 2.0]),
        pa.array([0, 1], pa.timestamp("s")),
        pa.array([["a"], ["b"]]),
        pa.array([b"a", b"b"]),
        pa.array([None, "a"]),
    ],
)
def test_parquet_columns_that_are_no_labels_are_refused(tmp_path, array):
    pq.write_table(pa.table({"text": ["x", "y"], "label": array}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"row 0, column 'label': expected a string or a whole number"):
        labels_of(tmp_path / "a.parquet")


def test_class_labels_outside_the_schema_are_refused(tmp_path):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["a", "b"]))
    schema = features.arrow_schema.with_metadata(
        datasets.Dataset.from_dict({"text": ["x"], "label": [0]}, features).data.schema.metadata
    )
    pq.write_table(pa.table({"text": ["x", "y"], "label": [0, 7]}, schema=schema), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"row 1, column 'label': expected a label of the file's schema, got 7"):
        labels_of(tmp_path / "a.parquet")


def test_a_large_parquet_file_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_reader, "PIECE", 7)
    rows = [(f"text {row}", f"class {row % 3}") for row in range(100)]
    texts, labels = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"label": pa.array(labels).dictionary_encode(), "text": texts}),
        tmp_path / "a.parquet",
        row_group_size=30,
    )
    assert read(tmp_path / "a.parquet") == rows
    examples, *_ = load_training(ClassificationData(train=str(tmp_path / "a.parquet"), shots=2), "text", seed=0)
    assert sorted(examples.labels) == [0, 0, 1, 1, 2, 2]


def test_a_parquet_file_made_to_fill_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_reader, "UNPACKED_FREELY", 2**20)
    pq.write_table(pa.table({"text": ["x" * 10_000] * 10_000, "label": ["a"] * 10_000}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 50_000
    with pytest.raises(DataError, match=r"unpacks to at most 1000 times its size"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\na,b\n\nc\n", r"line 4: expected 2 cells, as in the first line, got 1"),
        ("a.csv", b'text,label\n"a\nb",x\nc,d,e\n', r"line 4: expected 2 cells.*got 3"),
        ("a.csv", b'text,label\na,b\n"a,b\nc,d\n', r"line 3: expected CSV"),
        ("a.csv", b'text,label\n"a"b,c\n', r"line 2: expected CSV"),
        ("a.csv", b"text,label\na,b\ncaf\xe9,c\n", r"line 3: expected text in UTF-8, got the byte 0xe9"),
        ("a.csv", "text,label\na,b\n".encode("utf-16"), r"line 1: expected text in UTF-8, got the byte 0xff"),
        ("a.csv", b"text,label\na\0,b\n", r"line 2: expected text in UTF-8, got the byte 0x00"),
        ("a.csv", b"text,label,text\na,b,c\n", r"one column 'text', got the columns text, label, text"),
        ("a.csv", b"text;label\na;b\n", r"a column 'text', got the columns text;label"),
        ("a.csv", b"\n\n", r"a column 'text', got none"),
        ("a.csv", gzip.compress(b"text,label\na,b\n", mtime=0), r"expected a file that is not compressed, got gzip"),
        ("a.parquet", b"PK\x03\x04" + bytes(90), r"expected a file that is not compressed, got zip"),
        ("a.json", b'[\n{"text": "a", "label": "b"},\n{"text": "a" "label": 1}]', r"line 3: expected a JSON array"),
        ("a.json", b'{"text": "a", "label": "b"}\n{"text": ', r"line 2: expected a JSON array"),
        (
            "a.json",
            b'{"text": "a", "label": "b"}\n{"text": \r\n{"text": "c", "label": "d"}',
            r"line 2: expected a JSON array",
        ),
        ("a.json", b'[{"text": "a", "label": "b"},\n{"text": \n\n', r"line 2: expected a JSON array"),
        ("a.json", b'{"text": "a", "label": "b", "text": "c"}', r"line 1: .*the key 'text' twice"),
        ("a.json", b'{"text": {"a": 1}, "label": "b"}', r"line 1, column 'text': .*got an object"),
        ("a.json", b'{"text": "\\ud800", "label": "b"}', r"line 1, column 'text': .*half of a surrogate pair"),
        ("a.json", b'{"data": [{"text": "a", "label": "b"}]}', r"a column 'text', got the columns data"),
        ("a.json", b"[1, 2]", r"row 0: expected an object with the columns as keys, got 1"),
        ("a.json", b"[" * 100_000, r"line 1: expected a JSON array"),
        ("a.json", b"[]", r"at least one row"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbftext,label\r\na,b\r\n", b"text,label\ra,b\r", b"x,text,label,x\n1,a,b,2\n\n"]
)
def test_marks_line_ends_and_other_columns_do_not_matter(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    assert read(tmp_path / "a.csv") == [("a", "b")]


def test_a_missing_key_and_nan_are_missing_values(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "b"}\n{"label": NaN}\n')
    assert read(tmp_path / "a.jsonl") == [("a", "b"), (None, None)]


def test_a_cell_longer_than_the_csv_modules_limit(tmp_path):
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text("text,label\n" + "a" * 200_000 + ",b\n")
    assert read(tmp_path / "a.csv") == [("a" * 200_000, "b")]
    assert csv.field_size_limit() == before


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "linked.csv").symlink_to(tmp_path / "pipe.csv")
    (tmp_path / "dead.csv").symlink_to(tmp_path / "nowhere.csv")
    (tmp_path / "circle.csv").symlink_to(tmp_path / "circle.csv")
    (tmp_path / "device.csv").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.csv"))
    kinds = {"pipe": "a pipe", "linked": "a pipe", "dead": "a link to nothing", "circle": "symbolic links"}
    for name, kind in {**kinds, "device": "a device", "s": "a socket", "x" * 300: "too long"}.items():
        for attempt in (lambda path: check_source(path, "data.train"), read):
            with pytest.raises(DataError, match=kind):
                attempt(str(tmp_path / f"{name}.csv"))


def test_a_home_folder_is_found_without_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data.csv").write_text("text,label\na,b\n")
    check_source("~/data.csv", "data.train")
    assert read("~/data.csv") == [("a", "b")]


def test_the_input_cannot_be_the_label(tmp_path):
    (tmp_path / "data.csv").write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"data\.label_column: expected another column"):
        load_rows(str(tmp_path / "data.csv"), split="train", columns=("text", "text"))
