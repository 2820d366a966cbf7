"""GLUE's tasks: pairs of texts, numbers to predict, its metrics, its own files, and one line of config for each."""

import importlib
from dataclasses import replace

import datasets
import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer

from randlora.errors import ConfigError, DataError
from randlora.tasks import TASKS, TextData
from randlora.tasks.fingerprint import examples_fingerprint
from randlora.tasks.suites.registry import suite_entries
from randlora.training import MethodConfig, OptimizationConfig, TrainConfig, evaluate, load_config, search, train
from randlora.training.data_view import look_at
from randlora.training.methods import load_model

GLUE = {name: entry for name, entry in suite_entries().items() if name.startswith("glue/")}

COLUMNS = {
    "cola": ("sentence", "label", "idx"),
    "sst2": ("sentence", "label", "idx"),
    "mrpc": ("sentence1", "sentence2", "label", "idx"),
    "stsb": ("sentence1", "sentence2", "label", "idx"),
    "qqp": ("question1", "question2", "label", "idx"),
    "mnli": ("premise", "hypothesis", "label", "idx"),
    "qnli": ("question", "sentence", "label", "idx"),
    "rte": ("sentence1", "sentence2", "label", "idx"),
    "wnli": ("sentence1", "sentence2", "label", "idx"),
}
"""The hub's, as its page lists them."""

HEADERS = {
    "cola": "",
    "sst2": "sentence\tlabel",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "mnli": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
    "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
    "qnli": "index\tquestion\tsentence\tlabel",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "wnli": "index\tsentence1\tsentence2\tlabel",
}
"""First lines of GLUE's own files."""


def config_of(folder, **data):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"task": "text-classification", "model": "m", "output": "o", "data": data}))
    return load_config(path)


def hub_table(subset):
    kinds = {"label": datasets.Value("float32") if subset == "stsb" else datasets.ClassLabel(names=["x", "y", "z"])}
    columns = COLUMNS[subset]
    kinds |= {name: datasets.Value("int32" if name == "idx" else "string") for name in columns if name != "label"}
    rows = {
        name: [number % 3 if name in ("label", "idx") else f"text {number}" for number in range(6)] for name in columns
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


@pytest.mark.parametrize("name", GLUE)
def test_one_line_reads_the_hubs_columns_and_splits(name, tmp_path, monkeypatch):
    asked = []

    def load_dataset(path, subset, *, split, revision):
        asked.append((path, subset, split))
        return hub_table(subset)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = TASKS["text-classification"](config_of(tmp_path, suite=name).data, seed=0)
    train, test = task.examples("train"), task.examples("test")
    subset = name.removeprefix("glue/").removesuffix("-mm")
    splits = {"glue/mnli": "validation_matched", "glue/mnli-mm": "validation_mismatched"}
    assert asked == [("nyu-mll/glue", subset, "train"), ("nyu-mll/glue", subset, splits.get(name, "validation"))]
    assert len(train) == len(test) == 6
    assert {train.column, train.pair} - {None} == set(COLUMNS[subset]) - {"label", "idx"}
    assert task.has("validation") is False
    goals = {"cola": "matthews_correlation", "stsb": "pearson"}
    assert task.goal.metric == goals.get(subset, "accuracy")
    assert all(isinstance(label, float if subset == "stsb" else int) for label in train.labels)


def own_lines(name):
    """The lines of a file as GLUE's own are: quotes are letters like others."""
    header = HEADERS[name.removeprefix("glue/").removesuffix("-mm")]
    columns = header.split("\t") if header else ["source", "label", "mark", "sentence"]
    of_labels = {"label", "Quality", "is_duplicate", "gold_label"}
    lines = [header] if header else []
    for number in range(4):
        cells = [f"{number}.5" if name == "score" else f'say "{number}' for name in columns]
        cells = [str(number % 2) if column in of_labels else cell for column, cell in zip(columns, cells, strict=True)]
        lines.append("\t".join(cells))
    return lines


def own_task(name, folder, lines, end="\n"):
    """The task on a file of these lines."""
    source = folder / "train.tsv"
    source.write_text(end.join(lines) + end, encoding="utf-8", newline="")
    data = config_of(folder, suite=name, train=str(source), test=str(source)).data
    return TASKS["text-classification"](data, seed=0)


@pytest.mark.parametrize("name", GLUE)
@pytest.mark.parametrize(("start", "end"), [("", "\n"), ("\ufeff", "\r\n")])
def test_one_line_reads_glues_own_files(name, start, end, tmp_path):
    first, *others = own_lines(name)
    found = own_task(name, tmp_path, [start + first, *others], end).examples("train")
    assert found.labels == ([0.5, 1.5, 2.5, 3.5] if name == "glue/stsb" else [0, 1, 0, 1])
    assert list(found.rows[found.column]) == [f'say "{number}' for number in range(4)]


@pytest.mark.parametrize("name", GLUE)
def test_a_row_that_cannot_be_used_is_named(name, tmp_path):
    *lines, last = own_lines(name)
    count, number = last.count("\t") + 1, len(lines) + 1
    for broken, got in ((f"{last}\tx", count + 1), (last.rpartition("\t")[0], count - 1)):
        with pytest.raises(DataError, match=rf"line {number}: expected {count} cells, .*, got {got} .*'NF == {count}'"):
            own_task(name, tmp_path, [*lines, broken]).examples("train")
    label = own_task(name, tmp_path, lines).data.label_column
    header = HEADERS[name.removeprefix("glue/").removesuffix("-mm")]
    cells = last.split("\t")
    cells[header.split("\t").index(label) if header else 1] = ""
    with pytest.raises(DataError, match=rf"train\.tsv: row 3, column '{label}': expected .* as label, got none"):
        own_task(name, tmp_path, [*lines, "\t".join(cells)]).examples("train")


def test_given_keys_win_and_a_run_keeps_what_was_filled_in(tmp_path):
    config = config_of(tmp_path, suite="glue/mrpc", metrics=["f1"], test="mine.csv", fraction=0.5)
    assert (config.data.metrics, config.data.test, config.data.text_pair_column) == (["f1"], "mine.csv", "sentence2")
    own = config_of(tmp_path, suite="glue/mrpc", train="mine.csv").data
    assert (own.train, own.test, own.subset, own.text_pair_column) == ("mine.csv", None, None, "sentence2")
    config_of(tmp_path, suite="glue/mrpc")
    words = ["--data.suite", "glue/qqp", "--data.label_column", "other"]
    changed = load_config(tmp_path / "config.yaml", words)
    assert (changed.data.text_column, changed.data.label_column) == ("question1", "other")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"suite": "glue/colla"},
            r"^data\.suite: expected a suite of text-classification, glue/….*did you mean glue/cola",
        ),
        ({"suite": "vision/mnist"}, r"that is for task: image-text or image-classification"),
        ({"suite": 3}, r"^data\.suite: expected"),
    ],
)
def test_unknown_suites_are_refused(data, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        config_of(tmp_path, **data)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"metrics": ["pearson"]}, ConfigError, "metrics of classes, accuracy, f1, matthews_correlation, got pearson"),
        ({"metrics": ["f1"], "regression": True}, ConfigError, "metrics of numbers, pearson, spearman, got f1"),
        ({"metrics": []}, ConfigError, "got none"),
        ({"metrics": ["f1", "f1"]}, ConfigError, "expected different metrics"),
        ({"regression": True, "shots": 2}, ConfigError, "none where labels are numbers"),
        ({"text_pair_column": "text"}, ConfigError, "another column than data.text_column"),
        ({"columns": ["text", "label"], "train": "t.jsonl"}, ConfigError, r"none but for \.csv and \.tsv files"),
    ],
)
def test_options_in_conflict_are_refused(data, error, message, tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,1\n")
    (tmp_path / "t.jsonl").write_text('{"text": "a", "label": 1}\n')
    values = {"train": "t.csv", **data}
    values["train"] = str(tmp_path / values["train"])
    with pytest.raises(error, match=message):
        TASKS["text-classification"].check(TextData(**values, test=str(tmp_path / "t.csv")))


def test_numbers_are_read_as_numbers_and_what_is_none_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,0.25\nb,4\nc,1e-1\nd,-2\n")
    data = TextData(train=str(tmp_path / "t.csv"), test=str(tmp_path / "t.csv"), regression=True, validation=2)
    task = TASKS["text-classification"](data, seed=3)
    held, kept = task.examples("validation"), task.examples("train")
    assert sorted([*held.labels, *kept.labels]) == [-2, 0.1, 0.25, 4]
    assert (len(held), task.examples("test").labels) == (2, [0.25, 4.0, 0.1, -2.0])
    assert task.facts() == {"label_names": ["label"]}
    for wrong in ("nan", "", "high", "inf", "1_0"):
        (tmp_path / "t.csv").write_text(f"text,label\na,1\nb,{wrong}\n")
        with pytest.raises(DataError, match=r"t\.csv: row 1, column 'label': expected a number as label"):
            TASKS["text-classification"](data, seed=3).examples("train")


def test_of_two_texts_one_may_be_empty_and_both_are_part_of_the_fingerprint(tmp_path, bert):
    digests = []
    for second in ("x", "", "y"):
        (tmp_path / "t.csv").write_text(f'a,b,label\nmoney,card,p\nlost,"{second}",q\n')
        data = TextData(
            train=str(tmp_path / "t.csv"), test=str(tmp_path / "t.csv"), text_column="a", text_pair_column="b"
        )
        task = TASKS["text-classification"](data, seed=0)
        digests.append(examples_fingerprint(task.examples("train")))
    assert len(set(digests)) == 3
    task.tokenizer, task.max_length, task._head_story, task._untold = AutoTokenizer.from_pretrained(bert), 16, "", []
    row = task.dataset("train")[0]
    assert row["input_ids"] == task.tokenizer("money", "card")["input_ids"]
    (tmp_path / "t.csv").write_text('a,b,label\nmoney,card,p\n" ","",q\n')
    with pytest.raises(DataError, match="row 1, column 'a': expected a text"):
        TASKS["text-classification"](data, seed=0).dataset("train")


def test_tsv_without_a_header_and_lines_of_another_length(tmp_path):
    (tmp_path / "t.tsv").write_text('a\t1\t\tsay "so\nb\t0\t*\tno, "never"\n')
    source = str(tmp_path / "t.tsv")
    data = TextData(train=source, test=source, columns=["s", "label", "m", "text"])
    examples = TASKS["text-classification"](data, seed=0).examples("train")
    assert list(examples.rows["text"]) == ['say "so', 'no, "never"']
    (tmp_path / "t.tsv").write_text("a\t1\t\tx\nb\t0\n")
    with pytest.raises(DataError, match=r"t\.tsv: line 2: expected 4 cells, as data\.columns says, got 2"):
        TASKS["text-classification"](data, seed=0).examples("train")
    data.columns = ["s", "label"]
    with pytest.raises(DataError, match=r"expected a column 'text', got the columns s, label"):
        TASKS["text-classification"](data, seed=0).examples("train")


@pytest.fixture
def similarity(tmp_path, bert):
    """A config of STS-B in small: how many of the second text's words are in the first."""
    generator = np.random.default_rng(0)
    words = ["money", "card", "lost", "red", "green", "blue"]
    for name, count in (("train", 64), ("test", 16)):
        lines = ["index\tsentence1\tsentence2\tscore"]
        for number in range(count):
            word = words[number % 6]
            same = number % 2
            other = word if same else words[int(generator.integers(6))]
            lines.append(f"{number}\tmy {word}\tmy {other}\t{5.0 * (other in ('money', 'card', 'lost')):.1f}")
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    data = TextData(
        train=str(tmp_path / "train.tsv"),
        test=str(tmp_path / "test.tsv"),
        validation=0.25,
        text_column="sentence1",
        text_pair_column="sentence2",
        label_column="score",
        regression=True,
        max_length=16,
    )
    optimization = OptimizationConfig(
        learning_rate=1e-2, epochs=8, batch_size=8, precision="fp32", device="cpu", keep_best=True
    )
    return TrainConfig(
        model=str(bert),
        output=str(tmp_path / "run"),
        method=MethodConfig(name="full"),
        data=data,
        optimization=optimization,
    )


def test_the_largest_example_is_a_pair_with_a_number(similarity):
    task = TASKS["text-classification"](similarity.data, seed=0)
    load_model(task, similarity)
    (row, _), words = task.largest(2)
    assert row["labels"] == 0.0
    assert isinstance(row["labels"], float)
    longest = max(len(task.tokenizer(*texts)["input_ids"]) for texts in (("my money", "my card"),))
    assert len(row["input_ids"]) == longest
    assert f"texts of {longest} tokens" in words


@pytest.mark.slow
def test_a_whole_run_of_numbers(similarity, tmp_path, monkeypatch):
    record = train(similarity)
    assert (record.goal, record.unit, record.split) == ("pearson", "points", "validation")
    assert record.metrics["test_pearson"] > 50
    assert record.metrics["validation_pearson"] > record.metrics["validation_pearson_before"]
    assert evaluate(tmp_path / "run")["spearman"] == pytest.approx(record.metrics["test_spearman"])
    assert train(similarity) == record
    view = look_at(similarity)
    assert view.statistics["train"].startswith("48 examples, labels from 0 to 5")
    assert view.examples[0][1].count("\n") == 1

    def scored(config, **_):
        value = {1e-3: 10.0, 3e-3: 50.0, 1e-2: 20.0}[config.optimization.learning_rate]
        return replace(record, metrics={**record.metrics, "validation_pearson": value})

    monkeypatch.setattr(importlib.import_module("randlora.training.search"), "train", scored)
    assert search(similarity, [1e-3, 3e-3, 1e-2], [0]).learning_rate == 3e-3
