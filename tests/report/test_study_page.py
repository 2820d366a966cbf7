"""A study on the page: it is told in the study's own words, with what diverged and what failed."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from randlora.errors import ConfigError
from randlora.report.page import write
from randlora.report.page.finding import find
from randlora.report.page.grouping import group
from randlora.studies.study import Study
from randlora.studies.suite import Paper
from randlora.studies.worker import work
from randlora.training.run.folder import as_dict
from study_stand_in import DIVERGED, suite, train


def run(config, *, score_test):
    """The stand-in, but for one rate that diverges and a run that fails, with the config that a run has beside it."""
    if config.optimization.learning_rate == 1e-2:
        raise DIVERGED
    if config.method.name == "full":
        raise ConfigError("model", expected="one that <b>loads</b>", got="none")
    record = train(config, score_test=score_test)
    (Path(config.output) / "config.yaml").write_text(yaml.safe_dump(as_dict(config)), encoding="utf-8")
    return record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("study") / "s"
    shots = {"1 shot": {"data.shots": 1}, "4 shots": {"data.shots": 4, "optimization.epochs": 1}}
    paper = Paper(
        table="4",
        backbone="RoBERTa-base",
        settings={"1 shot": "full"},
        columns={"two words": "CoLA"},
        methods={"lora as_lora=4": "LoRA-4"},
    )
    own = suite(description="Which is best?", shots=shots, tasks={"two words": {}}, paper=[paper])
    study = Study(own, place, begin=True)
    work(study, run=run, poll=0.01)
    return place


def test_runs_are_called_by_their_place_in_the_study(folder):
    found = find([folder])
    settings = group(found)
    assert [setting.title for setting in settings] == ["two words 1 shot", "two words 4 shots"]
    for setting in settings:
        assert sorted(arm.label for arm in setting.arms) == ["lora as_lora=4", "randlora as_lora=4"]
        assert {rate for arm in setting.arms for rate in arm.diverged} == {1e-2}
    assert "two words 1 shot, lora as_lora=4, 0.003, seed 1" in [run.name for run in found.runs]
    (study,) = found.studies
    assert len(study.failed) == 6  # the first three rates of full fine-tuning, twice


def test_the_page_has_the_studys_table_and_no_keys_of_runs(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "MOST_SETTINGS", 0)  # their figures are others' tests
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    page = write.write_page([folder], tmp_path / "page").read_text(encoding="utf-8")
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    keys = [path.name for path in (folder / "runs").iterdir()]
    shown = re.sub(r"<pre.*?</pre>", "", page.partition("<h2")[2], flags=re.DOTALL)
    shown = re.sub(r"<code>.*?</code>", "", shown)  # a command has to name the folder
    assert not any(key in shown for key in keys)
    section = page.partition('id="study-1"')[2].partition("</section>")[0]
    assert "Which is best?" in section
    assert "mean rank" in section
    assert 'data-value="58.4"' in section  # the paper's, to be sorted by
    assert "2 of 6 cells failed" in section
    assert "two words 1 shot, lora as_lora=4: at 0.01" in section
    assert "one that &lt;b&gt;loads&lt;/b&gt;" in section
    assert 'id="amounts"' in page
    assert "test accuracy by examples of each class" in page.lower()
    assert {"study-1-ranks.svg", "amounts-1-1.png"} <= {path.name for path in (tmp_path / "page/figures").iterdir()}


def test_what_is_no_longer_in_the_suite_is_shown_as_a_run(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = yaml.safe_load((copy / "suite.yaml").read_text(encoding="utf-8"))
    del content["methods"]["lora"], content["paper"]
    (copy / "suite.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    labels = {arm.label for setting in group(find([copy])) for arm in setting.arms}
    assert labels == {"lora r=4", "randlora as_lora=4"}


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("study.json", json.dumps({"study": "small", "queue": "a database"}), "--storage"),
        ("suite.yaml", "name: [", "suite.yaml"),
        ("journal.log", '{"x": \n{}\n', "Error"),
        ("journal.log", None, "with journal.log, got none there"),
    ],
)
def test_a_study_that_cannot_be_read_is_shown_as_runs(file, content, reason, folder, tmp_path, caplog):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / file).unlink() if content is None else (copy / file).write_text(content, encoding="utf-8")
    found = find([copy])
    assert found.studies == []
    (line,) = [message for message in caplog.messages if "shown as runs" in message]
    assert reason in line
    assert (copy / file).exists() == (content is not None)  # nothing is made
    assert {arm.label for setting in group(found) for arm in setting.arms} == {"lora r=4", "randlora as LoRA r=4"}


def test_a_study_whose_queue_is_in_a_database_is_a_study_too(tmp_path):
    url = f"sqlite:///{tmp_path}/queue.db"
    study = Study(suite(tasks={"one": {}}), tmp_path / "s", url, begin=True)
    work(study, run=run, poll=0.01)
    before = (tmp_path / "queue.db").read_bytes()
    (found,) = find([tmp_path / "s"]).studies
    assert len(found.failed) == 3
    assert found.diverged
    assert (tmp_path / "queue.db").read_bytes() == before
    (tmp_path / "queue.db").unlink()
    without = find([tmp_path / "s"])
    assert not without.studies
    assert len(without.runs) > 0
    assert "shown as runs, not as a study" in without.passed_over[-1]
    assert not (tmp_path / "queue.db").exists()
