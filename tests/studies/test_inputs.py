"""What a study does when its data change: files are compared, data sets of the hub are read at one commit."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import yaml

from randlora.errors import OutputError
from randlora.studies.study import Study
from randlora.studies.worker import work
from randlora.training.run.folder import CONFIG, as_dict
from study_stand_in import failing_at, suite, train

LORA = {"lora": {"name": "lora"}}


def test_data_that_change_stop_a_study_once_a_run_was_trained_on_them(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,label\nx,1\ny,0\n")
    data = {"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "b.csv"), "validation": 0.5}
    tasks = {"one": {"data": data}}
    found = suite(tasks=tasks, base={"model": "m"}, methods=LORA, learning_rates=[1e-3])
    study = Study(found, tmp_path / "s", begin=True)
    work(study, run=failing_at(1e-3))
    work(study, run=failing_at(1e-3, OSError()), retry_failed=True)
    assert not any(entry.count("done") for entry in study.progress())
    (tmp_path / "a.csv").write_text("text,label\nx,1\nz,0\n")
    work(study, retry_failed=True, run=train)  # nothing was trained on the other
    work(study, run=train)
    (tmp_path / "b.csv").write_text("text,label\nx,0\ny,0\n")
    with pytest.raises(OutputError, match=r"b\.csv: expected what runs of small were trained on, got one that has ch"):
        work(study, run=train)


def test_a_folder_of_images_that_changed_is_noticed(tmp_path):
    for name in ("train/red/1.png", "train/blue/1.png", "test/red/1.png", "test/blue/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    data = {"train": str(tmp_path / "train"), "test": str(tmp_path / "test")}
    base = {"task": "image-classification", "model": "m", "data": data}
    found = suite(tasks={"one": {}}, base=base, methods=LORA, learning_rates=[1e-3], seeds=[0])
    study = Study(found, tmp_path / "s", begin=True)
    work(study, run=train)
    os.utime(tmp_path / "train")  # of the folder itself, as of many a look into it
    assert work(study, run=train) == 0
    times = (tmp_path / "test/red/1.png").stat()
    for change, back in (
        (lambda: (tmp_path / "train/red/2.png").write_bytes(b"12"), (tmp_path / "train/red/2.png").unlink),
        (lambda: (tmp_path / "test/red/1.png").rename(tmp_path / "test/blue/2.png"), None),
    ):
        change()
        with pytest.raises(OutputError, match=r"(train|test): expected what runs of small were trained on"):
            work(study, run=train)
        if back is not None:
            back()
            assert work(study, run=train) == 0
    (tmp_path / "test/blue/2.png").rename(tmp_path / "test/red/1.png")
    (tmp_path / "test/red/1.png").write_bytes(b"21")  # another image of as many bytes
    os.utime(tmp_path / "test/red/1.png", (times.st_atime + 5, times.st_mtime + 5))
    with pytest.raises(OutputError, match="test: expected what runs"):
        work(study, run=train)


def test_data_that_change_under_a_worker_stop_it_before_its_next_run(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,label\nx,1\ny,0\n")
    data = {"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "b.csv")}
    found = suite(tasks={"one": {"data": data}}, base={"model": "m"}, methods=LORA, learning_rates=[1e-3])
    study = Study(found, tmp_path / "s", begin=True)

    def run(config, *, score_test):
        train(config, score_test=score_test)
        (tmp_path / "a.csv").write_text("text,label\nx,1\nz,0\n")

    with pytest.raises(OutputError, match=r"a\.csv: expected what runs of small were trained on"):
        work(study, run=run)
    assert [entry.count("done", "missing", "failed", "running") for entry in study.progress()] == [2]
    assert [entry.count("done") for entry in study.progress()] == [1]


def test_runs_of_cells_that_the_plan_has_no_more_count_too(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,label\nx,1\ny,0\n")
    data = {"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "b.csv")}

    def planned(seeds):
        own = {"tasks": {"one": {"data": data}}, "base": {"model": "m"}, "methods": LORA, "learning_rates": [1e-3]}
        return Study(suite(**own, seeds=seeds), tmp_path / "s", begin=True)

    def run(config, *, score_test):
        train(config, score_test=score_test)
        (Path(config.output) / CONFIG).write_text(yaml.safe_dump(as_dict(config)))

    work(planned([0]), run=run)
    (tmp_path / "a.csv").write_text("text,label\nx,1\nz,0\n")
    with pytest.raises(OutputError, match=r"a\.csv: expected what runs of small were trained on"):
        work(planned([1]), run=run)  # else [0, 1] would show them as seeds of one run


@pytest.fixture
def hub(monkeypatch):
    """A hub whose data sets are at one commit; what it was asked for."""
    known = SimpleNamespace(commit="1" * 40, asked=[])

    def load_dataset_builder(name, subset, *, revision):
        known.asked.append((name, subset, revision))
        return SimpleNamespace(hash=known.commit)

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    return known


def test_data_of_the_hub_stay_at_the_commit_that_the_first_run_found(tmp_path, hub):
    data = {"train": "own/set@main:train", "test": "own/set@main:test", "validation": 0.1, "subset": "a"}
    found = suite(tasks={"one": {"data": data}}, base={"model": "m"}, methods=LORA, learning_rates=[1e-3])
    seen = set()

    def run(config, *, score_test):
        seen.add((config.data.train, config.data.validation, config.data.test))
        hub.commit = "2" * 40  # somebody pushes
        return train(config, score_test=score_test)

    first = Study(suite(**{**found.__dict__, "seeds": [0]}), tmp_path / "s", begin=True)
    work(first, run=run)
    work(Study(found, tmp_path / "s", begin=True), run=run)  # another seed, another day
    assert seen == {(f"own/set@{'1' * 40}:train", 0.1, f"own/set@{'1' * 40}:test")}
    assert hub.asked == [("own/set", "a", "main")]
    known = json.loads((tmp_path / "s/inputs.json").read_text())
    assert known == {"hf://datasets/own/set@main, a": "1" * 40}


def test_every_source_of_a_mixture_has_a_commit(tmp_path, hub):
    mixed = ["own/text:half", {"source": "own/chat", "weight": 0.5, "subset": "b"}, "here.jsonl"]
    base = {"task": "sft", "model": "m", "data": {"train": mixed, "test": "own/text:test"}}
    found = suite(tasks={"one": {}}, base=base, methods=LORA, learning_rates=[1e-3], seeds=[0])
    seen = []

    def run(config, *, score_test):
        seen.append(config.data)
        return train(config, score_test=score_test)

    work(Study(found, tmp_path / "s", begin=True), run=run)
    chat = {"source": f"own/chat@{'1' * 40}", "weight": 0.5, "subset": "b"}
    assert seen[0].train == [f"own/text@{'1' * 40}:half", chat, "here.jsonl"]
    assert seen[0].test == f"own/text@{'1' * 40}:test"
    assert hub.asked == [("own/text", None, None), ("own/chat", "b", None)]


def test_a_data_set_that_the_hub_does_not_know_fails_its_own_cell_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    tasks = {
        "one": {"data": {"train": "own/no-set", "test": "own/no-set:test"}},
        "two": {"data": {"train": "a.csv", "test": "b.csv"}},
    }
    found = suite(tasks=tasks, base={"model": "m"}, methods=LORA, learning_rates=[1e-3], seeds=[0])
    study = Study(found, tmp_path / "s", begin=True)
    work(study, run=train)
    one, two = study.progress()
    assert two.count("done") == 1
    (error,) = [outcome.error for _, outcome in one.units]
    assert error.startswith("own/no-set: expected a file, or a hub data set, got ConnectionError")
