"""What is wrong with a suite's data is said before any run is begun: all of it, a line for each task."""

import json

import datasets
import pytest

from randlora.cli import main
from randlora.studies import slurm
from randlora.studies.data import data_faults
from randlora.studies.schema import in_yaml
from randlora.studies.study import Study
from randlora.studies.worker import work
from study_stand_in import suite, train

TEXTS = "text,label\nmy card,card\nmy cash,cash\n"
FORMS = {
    "messages": {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
    "completion": {"prompt": "hi", "completion": "ho"},
    "alpaca": {"instruction": "say", "output": "ho"},
    "e2e": {"mr": "name[A]", "ref": "A is a pub."},
    "sharegpt": {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
    "text": {"text": "ho"},
}
PAIR = {"prompt": "hi", "chosen": "ho", "rejected": "no"}
PLAIN = {"lora": {"name": "lora"}}


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """Faults of one task, whose files are written first."""
    monkeypatch.chdir(tmp_path)

    def found(task, files, data, **options):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        base = {"task": task, "model": "m", "data": {"train": "a.csv", "test": "b.csv", **data}}
        given = suite(base=base, tasks={"one": {}}, methods=PLAIN, learning_rates=[1e-3])
        return data_faults(Study(given, tmp_path / "s"), **options)

    return found


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_what_fits_has_no_faults(faults):
    assert faults("text-classification", {"a.csv": TEXTS, "b.csv": TEXTS}, {}) == []


@pytest.mark.parametrize(
    ("train", "test", "data", "words"),
    [
        (TEXTS, "sentence,label\nx,card\n", {}, ["b.csv: expected a column 'text', got the columns sentence, label"]),
        (
            "sentence,label\nx,card\n",
            "text,intent\nx,card\n",
            {},
            ["a.csv: expected a column 'text', got", "b.csv: expected a column 'label', got the columns text, intent"],
        ),
        (
            TEXTS,
            TEXTS,
            {"text_pair_column": "second"},
            ["a.csv: expected a column 'second'", "b.csv: expected a column"],
        ),
        (
            TEXTS,
            TEXTS + "x,loan\n",
            {},
            ["b.csv: row 2, column 'label': expected one of the 2 labels seen in training"],
        ),
        (TEXTS, "text,label\n", {}, ["b.csv: expected at least one row, got none"]),
        (TEXTS, "", {}, ["data.test: expected a data file with rows, got b.csv, which is empty"]),
        (TEXTS, TEXTS + "x,\n", {}, ["b.csv: row 2, column 'label': expected a string or a whole number as label"]),
        (TEXTS + ",card\n", TEXTS, {}, ["a.csv: row 2, column 'text': expected a text, got ''"]),
        (TEXTS, b"text,label\n\xff,card\n", {}, ["b.csv: line 2: expected text in UTF-8"]),
        (TEXTS, TEXTS, {"shots": 2}, ["data.shots: expected at most 1, the rows of class 'card' in a.csv, got 2"]),
        (TEXTS, TEXTS, {"regression": True}, ["a.csv: row 0, column 'label': expected a number", "b.csv: row 0"]),
    ],
)
def test_texts(faults, train, test, data, words):
    found = faults("text-classification", {"a.csv": train, "b.csv": test}, data)
    assert len(found) == len(words), found
    for line, expected in zip(found, words, strict=True):
        assert line.startswith("one: ")
        assert expected in line


@pytest.mark.parametrize("task", ["image-classification", "image-text"])
def test_images(faults, task):
    rows = "image,label\ni/1.png,cat\ni/2.png,dog\n"
    files = {"a.csv": rows, "b.csv": rows, "i/1.png": b"1", "i/2.png": b"2"}
    assert faults(task, files, {}) == []
    (line,) = faults(task, files | {"b.csv": rows + "i/3.png,cat\n"}, {})
    assert "b.csv: row 2, column 'image': expected the path of an image, got i/3.png: nothing" in line
    (line,) = faults(task, files, {"train": "i"})
    assert "i: expected one folder per class with images in it" in line
    assert len(faults(task, files, {"image_column": "picture"})) == 2


def test_classes_must_have_names(faults):
    rows = "image,label\ni/1.png,cat\ni/2.png,dog\n"
    files = {"a.csv": rows, "b.csv": rows, "i/1.png": b"1", "i/2.png": b"2"}
    (line,) = faults("image-text", files, {"class_names": ["cat"]})
    assert "data.class_names: expected 2 names, one per label, got 1" in line


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_examples_to_imitate(faults, form):
    data = {"train": "a.jsonl", "test": "b.jsonl"}
    good = {"a.jsonl": lines(FORMS[form]), "b.jsonl": lines(FORMS[form])}
    assert faults("sft", good, data) == []
    column = next(iter(FORMS[form]))
    other = {"other" if key == column else key: value for key, value in FORMS[form].items()}
    (line,) = faults("sft", good | {"b.jsonl": lines(other)}, data)
    assert "b.jsonl: expected the columns of one form" in line
    (line,) = faults("sft", good | {"a.jsonl": lines(FORMS[form], FORMS[form] | {column: 7})}, data)
    assert "a.jsonl: line 2, column" in line
    (line,) = faults("sft", good | {"b.jsonl": lines(PAIR)}, data)
    assert "data.test: expected another form of data, got preference (that is for task: preference)" in line


def test_answers_are_scored_on_questions_alone(faults):
    files = {"a.jsonl": lines(FORMS["text"]), "b.jsonl": lines(FORMS["text"])}
    (line,) = faults("sft", files, {"train": "a.jsonl", "test": "b.jsonl", "metrics": ["exact_match"]})
    assert "b.jsonl: line 1: expected a prompt with its answer, got a text" in line


def test_preferences(faults):
    data = {"train": "a.jsonl", "test": "b.jsonl"}
    assert faults("preference", {"a.jsonl": lines(PAIR), "b.jsonl": lines(PAIR)}, data) == []
    found = faults("preference", {"a.jsonl": lines(FORMS["text"]), "b.jsonl": lines({"chosen": "ho"})}, data)
    assert ["that is for task: sft" in found[0], "got 'chosen'" in found[1], len(found)] == [True, True, 2]


def test_data_sets_of_the_hub_are_looked_at_where_they_are_cached(faults, monkeypatch):
    rows = datasets.Dataset.from_dict({"sentence": ["x", "y"], "label": ["1", "0"]})
    cached = {"nobody/there"}

    def load(name, subset, *, revision, split=None):
        assert datasets.config.HF_HUB_OFFLINE
        if name not in cached:
            raise ConnectionError("no hub")
        return rows if split else type("Builder", (), {"hash": "1234"})()

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    (line,) = faults("text-classification", {}, {"train": "nobody/there", "test": None})
    assert line == (
        "one: nobody/there: expected a column 'text', got the columns sentence, label (name the right ones in "
        "data.text_column, text_pair_column, image_column and label_column)"
    )
    assert faults("text-classification", {}, {"train": "nobody/away", "test": None}) == []
    assert not datasets.config.HF_HUB_OFFLINE


def test_the_commands_say_all_that_is_wrong_and_begin_nothing(bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, content in (("a.csv", TEXTS), ("b.csv", TEXTS), ("c.csv", "sentence,label\nx,card\n")):
        (tmp_path / name).write_text(content)
    tasks = {
        "one": {"data.test": "c.csv"},
        "two": {"data.label_column": "intent"},
        "three": {},
        "four": {"data.test": "d.csv"},
    }
    base = {"model": str(bert), "data": {"train": "a.csv", "test": "b.csv"}}
    given = suite(base=base, tasks=tasks, methods=PLAIN, budgets=[2], learning_rates=[1e-3])
    (tmp_path / "suite.yaml").write_text(in_yaml(given), encoding="utf-8")
    expected = [
        "randlora: one: c.csv: expected a column 'text'",
        *[f"randlora: two: {name}.csv: expected a column 'intent'" for name in "ab"],
    ]
    missing = "randlora: four: data.test: expected a data file or folder, got d.csv, which does not exist"
    monkeypatch.setattr(slurm.shutil, "which", lambda _: "/usr/bin/sbatch")
    both = [*expected, missing]
    commands = {("run",): both, ("run", "--dry-run"): expected, ("work",): both, ("work", "--slurm", "2"): expected}
    for (verb, *words), wanted in commands.items():
        assert main(["study", verb, "suite.yaml", *words]) == 2
        found = [line for line in capsys.readouterr().err.splitlines() if line.startswith("randlora: ")]
        assert [line[: len(start)] for line, start in zip(found, wanted, strict=True)] == wanted
    assert not (tmp_path / "runs").exists()


def test_what_is_finished_is_not_looked_at_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("nothing\nto read\n")
    base = {"model": "m", "data": {"train": "a.csv", "test": "a.csv"}}
    given = suite(base=base, tasks={"one": {}}, methods=PLAIN, learning_rates=[1e-3])
    study = Study(given, tmp_path / "s", begin=True)
    assert len(data_faults(study)) == 1
    work(study, run=train)
    assert data_faults(study) == []


def test_a_finished_study_needs_no_data(bert, tmp_path, monkeypatch, capsys):
    """As one that was copied from another machine: there is nothing left to run, and the table is shown."""
    monkeypatch.chdir(tmp_path)
    base = {"model": str(bert), "data": {"train": "a.csv", "test": "a.csv"}}
    given = suite(base=base, tasks={"one": {}}, methods=PLAIN, learning_rates=[1e-3])
    work(Study(given, tmp_path / "s", begin=True), run=train)
    for verb in ("work", "run"):
        assert main(["study", verb, "s"]) == 0
        assert "74.50" in capsys.readouterr().out
    assert main(["study", "run", "s", "--seeds", "[0, 1, 2]"]) == 2
    assert "one: data.train: expected a data file or folder, got a.csv" in capsys.readouterr().err
