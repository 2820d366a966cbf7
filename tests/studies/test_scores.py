"""Scores of a study: what runs are asked after training stands in the table in the place of their test score."""

import json
from dataclasses import replace

import pytest

from randlora.errors import ConfigError
from randlora.studies import worker
from randlora.studies.schema import load_suite, suite_of
from randlora.studies.scores import scores_of
from randlora.studies.study import Study
from randlora.studies.suite import Paper, Score
from randlora.studies.table import study_table
from randlora.studies.worker import work
from randlora.tasks.suites.e2e_scores import METRICS
from randlora.training.run import Record
from study_stand_in import suite, train

SCORE = Score(commonsense="questions", tasks=["boolq", "ARC-Easy"], limit=10)
RIGHT = {"boolq": 60.0, "ARC-Easy": 40.0}
PAPER = Paper(
    table="15",
    backbone="Qwen2-0.5B",
    settings={"one": "15k", "two": "170k"},
    columns={"boolq": "BoolQ", "ARC-Easy": "ARC-e"},
    average="Average",
    methods={"lora as_lora=4": "LoRA-16"},
)


def answer(run, score):
    """What `score_run` leaves behind; seeds and methods differ."""
    record = Record.load(run)
    plus = record.seed + 10 * (record.method == "lora")
    tasks = [{"task": task, "generated": RIGHT[task] + plus} for task in score.tasks]
    content = {"source": score.commonsense, "limit": score.limit, "batch_size": score.batch_size, "tasks": tasks}
    (run / f"commonsense-{score.protocol}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def asked(monkeypatch):
    """The runs that have been asked."""
    found = []

    def ask(run, score):
        found.append(run.name)
        answer(run, score)

    monkeypatch.setattr(worker, "score_run", ask)
    return found


def scored(folder, **changes):
    return Study(suite(score=SCORE, paper=[PAPER], **changes), folder, begin=True)


def test_every_score_is_a_column_beside_the_papers(tmp_path, asked):
    study = scored(tmp_path / "s")
    work(study, run=train, poll=0.01)
    result = study_table(study)
    cells = {(cell["row"], cell["column"]): cell for cell in result.data["cells"]}
    assert {column for _, column in cells} == {f"{task} {place}" for task in RIGHT for place in ("one", "two")}
    cell = cells["lora as_lora=4", "ARC-Easy one"]
    assert (cell["values"], cell["mean"], cell["unit"], cell["paper"]) == ([50.0, 51.0], 50.5, "%", "62.46")
    assert cells["lora as_lora=4", "ARC-Easy two"]["paper"] != cell["paper"]
    (average,) = (
        entry for entry in result.data["averages"] if (entry["row"], entry["shots"]) == ("lora as_lora=4", "one")
    )
    assert (average["tasks"], average["shown"]) == (2, 60.5)
    assert result.data["ranks"]["lora as_lora=4"]["rank"] == 1  # more is better, though the runs' goal may be a loss
    done = [entry for entry in study.progress() for _ in entry.records()]
    assert len(asked) == len(set(asked)) == len(done)  # runs of the search are not asked


def test_a_run_that_was_not_asked_so_is_asked_and_not_trained_again(tmp_path, asked):
    study = Study(suite(), tmp_path / "s", begin=True)
    work(study, run=train, poll=0.01)
    assert not asked
    trainings = sorted((tmp_path / "s").glob("runs/*/times"))
    before = [len(path.read_text()) for path in trainings]
    finished = {path.parent.name: path for path in trainings}

    def known(config, *, score_test):
        assert config.output.rpartition("/")[2] in finished  # `train` of a finished run gives its record back

    work(scored(tmp_path / "s"), run=known, poll=0.01)
    assert [len(path.read_text()) for path in trainings] == before
    first = len(asked)
    assert first > 0
    work(scored(tmp_path / "s"), run=known, poll=0.01)
    assert len(asked) == first
    other = suite(score=replace(SCORE, limit=20))
    work(Study(other, tmp_path / "s", begin=True), run=known, poll=0.01)
    assert len(asked) == 2 * first
    other = suite(score=replace(SCORE, commonsense="others"))
    work(Study(other, tmp_path / "s", begin=True), run=known, poll=0.01)
    assert len(asked) == 3 * first


def test_metrics_of_e2e_are_columns_and_one_that_cannot_be_had_is_missing(tmp_path, monkeypatch):
    def say(run, score):
        values = {**dict.fromkeys(METRICS, 50.0), "METEOR": None}
        scores = [{"metric": name, "value": value} for name, value in values.items()]
        content = {"source": score.e2e, "limit": None, "batch_size": 8, "scores": scores}
        (run / "e2e.json").write_text(json.dumps(content), encoding="utf-8")

    monkeypatch.setattr(worker, "score_run", say)
    study = Study(suite(score=Score(e2e="references.csv")), tmp_path / "s", begin=True)
    work(study, run=train, poll=0.01)
    cells = [cell for cell in study_table(study).data["cells"] if cell["shots"] == "one"]
    found = {(cell["row"], cell["task"], cell["unit"]): (cell["mean"], cell["state"]) for cell in cells}
    assert found["full", "BLEU", "%"] == (50.0, "done")
    assert found["full", "CIDEr", "points"] == (50.0, "done")
    assert found["full", "METEOR", "%"] == (None, "missing")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"source": "questions", "limit": 10, "batch_size": 8, "tasks": [{}]}']
)
def test_a_damaged_file_of_scores_is_none(tmp_path, text):
    (tmp_path / "commonsense-fixed.json").write_text(text, encoding="utf-8")
    assert scores_of(tmp_path, SCORE) is None


def test_a_run_that_cannot_be_asked_fails_its_cell(tmp_path, monkeypatch):
    def refuse(run, score):
        raise ConfigError("protocol", expected="another", got="this")

    monkeypatch.setattr(worker, "score_run", refuse)
    study = scored(tmp_path / "s")
    work(study, run=train, poll=0.01)
    assert {cell["state"] for cell in study_table(study).data["cells"]} == {"failed"}


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({}, "one of commonsense"),
        ({"commonsense": "a", "e2e": "b"}, "got both"),
        ({"e2e": "b", "tasks": ["boolq"]}, "beside commonsense only"),
        ({"commonsense": "a", "tasks": ["boolk"]}, "boolk"),
        ({"commonsense": "a"}, "language models"),
        ({"commonsense": "a", "protocol": "loose"}, r"score\.protocol"),
        ({"commonsense": "a", "limits": 3}, r"score\.limits"),
        ({"commonsense": "a", "limit": 0}, r"score\.limit"),
    ],
)
def test_wrong_scores_are_one_line(tmp_path, score, message):
    file = tmp_path / "suite.yaml"
    values = {"name": "s", "base": {"model": "m"}, "tasks": {"t": {}}, "methods": {"lora": {"name": "lora"}}}
    data = {"train": "a.csv", "test": "b.csv", "validation": 0.1}
    values |= {"learning_rates": [1e-3], "score": score}
    values["base"]["data"] = data
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_suite(file)


def test_words_of_the_command_line_change_scores(tmp_path):
    file = tmp_path / "suite.yaml"
    data = {"train": "a.jsonl", "test": "b.jsonl", "validation": 0.1}
    values = {"name": "s", "base": {"task": "sft", "model": "m", "data": data}, "tasks": {"t": {}}}
    values |= {"methods": {"lora": {"name": "lora"}}, "learning_rates": [1e-3], "score": {"commonsense": "a"}}
    file.write_text(json.dumps(values), encoding="utf-8")
    found = load_suite(file, ["--score.commonsense", "elsewhere", "--score.limit", "5"]).score
    assert found == Score(commonsense="elsewhere", limit=5)
    assert suite_of(values).score == Score(commonsense="a")
