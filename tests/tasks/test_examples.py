import json

import datasets
import pytest

from randlora.errors import DataError
from randlora.tasks import ClassificationData
from randlora.tasks.classification.labelled import load_labelled, load_training, require_texts
from randlora.tasks.rows import check_source, is_local

ROWS = [("lost card", "card"), ("send money", "pay"), ("NA", "null"), ("my card", "card"), ("pay me", "pay")]


def write(folder, kind, rows=ROWS, columns=("text", "label"), name="data"):
    path = folder / f"{name}.{kind}"
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    if kind == "csv":
        lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(records), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    else:
        datasets.Dataset.from_list(records).to_parquet(path)
    return str(path)


def training(folder, rows=ROWS, *, seed=0, kind="csv", **options):
    return load_training(ClassificationData(train=write(folder, kind, rows), **options), "text", seed=seed)[::2]


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_every_kind_of_file_reads_the_same(tmp_path, kind):
    examples, names = training(tmp_path, kind=kind)
    assert names == ["card", "null", "pay"]
    assert examples.labels == [0, 2, 1, 0, 2]
    assert list(examples.rows["text"]) == [text for text, _ in ROWS]


def test_whole_number_labels_are_ordered_as_numbers(tmp_path):
    examples, names = training(tmp_path, [("a", 10), ("b", 9), ("c", 10)])
    assert names == ["9", "10"]
    assert examples.labels == [1, 0, 1]


def test_class_labels_keep_the_order_of_the_schema(tmp_path):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["z", "a"]))
    table = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features)
    table.to_parquet(tmp_path / "train.parquet")
    data = ClassificationData(train=str(tmp_path / "train.parquet"), test=write(tmp_path, "csv", [("t", "a")]))
    examples, _, names = load_training(data, "text", seed=0)
    assert names == ["z", "a"]
    assert examples.labels == [1, 0]
    assert load_labelled(data.test, "test", data, "text", lambda: names).labels == [1]


def test_shots_are_drawn_per_class_and_by_the_seed(tmp_path):
    rows = [(f"text {row}", f"class {row % 3}") for row in range(60)]
    drawn = [training(tmp_path, rows, seed=seed, shots=4)[0] for seed in (0, 0, 1)]
    texts = [list(examples.rows["text"]) for examples in drawn]
    assert sorted(drawn[0].labels) == [0] * 4 + [1] * 4 + [2] * 4
    assert texts[0] == texts[1] != texts[2]
    assert all(int(text.split()[1]) % 3 == label for text, label in zip(texts[0], drawn[0].labels, strict=True))


def test_a_fraction_keeps_the_balance_and_every_class(tmp_path):
    rows = [(f"text {row}", "big") for row in range(40)] + [("rare text", "small")]
    examples, _ = training(tmp_path, rows, fraction=0.1)
    assert examples.labels.count(0) == 4
    assert examples.labels.count(1) == 1


def test_too_few_rows_for_the_shots(tmp_path):
    with pytest.raises(DataError, match=r"data\.shots: expected at most 1, the rows of class 'null'.*got 2"):
        training(tmp_path, shots=2)


def test_an_absent_column_is_named_with_the_ones_there(tmp_path):
    with pytest.raises(DataError, match=r"a column 'category', got the columns text, label"):
        training(tmp_path, label_column="category")


def test_a_label_unseen_in_training_is_named_with_its_row(tmp_path):
    test = write(tmp_path, "csv", [("a", "card"), ("b", "cash")], name="test")
    with pytest.raises(DataError, match=r"row 1, column 'label': expected one of the 3 labels.*got 'cash'"):
        load_labelled(test, "test", ClassificationData(train="x.csv"), "text", lambda: ["card", "null", "pay"])


@pytest.mark.parametrize(("labels", "kind"), [(("x", ""), "csv"), ((1, 1.5), "parquet")])
def test_a_label_that_is_none_is_named_with_its_row(tmp_path, labels, kind):
    with pytest.raises(DataError, match=r"row \d, column 'label': expected a string or a whole number"):
        training(tmp_path, [("a", labels[0]), ("b", labels[1])], kind=kind)


def test_an_absent_or_blank_text_is_named_with_its_row(tmp_path):
    examples, _ = training(tmp_path, [("a", "x"), (" ", "y")])
    with pytest.raises(DataError, match="row 1, column 'text': expected a text"):
        require_texts(examples)


@pytest.mark.parametrize(
    ("name", "content"),
    [("none.csv", None), ("empty.csv", b""), ("folder", "folder"), ("words.txt", b"text,label\n")],
)
def test_sources_that_cannot_be_data(tmp_path, name, content):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"^data\.train: "):
        check_source(str(path), "data.train")


@pytest.mark.parametrize(
    ("name", "content"),
    [("header.csv", b"text,label\n"), ("broken.json", b'[{"text": '), ("broken.parquet", b"PAR1 not really")],
)
def test_files_without_rows_or_that_do_not_parse(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        load_training(ClassificationData(train=str(tmp_path / name)), "text", seed=0)


def test_hub_names_are_not_taken_for_files():
    assert not is_local("uoft-cs/cifar10")
    assert is_local("missing.csv")
    assert is_local("./folder")


def hold_out(folder, rows, validation, seed=0):
    data = ClassificationData(train=write(folder, "csv", rows), validation=validation)
    return load_training(data, "text", seed=seed)[:2]


def test_a_validation_share_is_drawn_by_the_seed_and_no_row_is_lost(tmp_path):
    rows = [(f"text {row}", "ab"[row % 2]) for row in range(11)]
    drawn = [hold_out(tmp_path, rows, 0.25, seed) for seed in (0, 0, 1)]
    for train, validation in drawn:
        assert len(validation) == 3  # 2.75, rounded
        assert sorted([*train.numbers, *validation.numbers]) == list(range(11))
        for examples in (train, validation):
            assert list(examples.numbers) == sorted(examples.numbers)
            assert [
                (text, "ab"[label]) for text, label in zip(examples.rows["text"], examples.labels, strict=True)
            ] == [rows[number] for number in examples.numbers]
    first, again, other = ([*validation.numbers] for _, validation in drawn)
    assert first == again != other


def test_each_class_keeps_a_row_to_train_on(tmp_path):
    rows = [(f"text {row}", "rare" if row == 4 else "often") for row in range(11)]
    for seed in range(4):
        train, _ = hold_out(tmp_path, rows, 9, seed)
        assert sorted(train.labels) == [0, 1]
    with pytest.raises(DataError, match=r"data\.validation: expected from 1 to 9 of the 11 rows.*got 10"):
        hold_out(tmp_path, rows, 10)


def test_drawn_examples_stay_in_the_order_of_the_file_and_know_their_rows(tmp_path):
    rows = [("a", "x"), ("b", "x"), ("c", "x"), (" ", "y"), ("d", "z")]
    examples, _ = training(tmp_path, rows, shots=1)
    assert list(examples.numbers)[1:] == [3, 4]
    assert examples.labels == [0, 1, 2]
    with pytest.raises(DataError, match="row 3, column 'text': expected a text"):
        require_texts(examples)
    many = [(f"text {row}", "xy"[row % 2]) for row in range(20)]
    examples, _ = training(tmp_path, many, fraction=0.5)
    assert list(examples.numbers) == sorted(examples.numbers)
