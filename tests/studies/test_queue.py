"""The queue of a study: who holds what, and what lies where a queue should be."""

import errno
import json
import multiprocessing
import time
from pathlib import Path

import optuna
import pytest

from randlora.errors import ConfigError, OutputError
from randlora.studies import leases, queue
from randlora.studies.study import Study
from randlora.studies.worker import work
from study_stand_in import suite, train

AT_ONCE = multiprocessing.get_context("fork")


def done(folder, found=None):
    study = Study(found or suite(), folder, begin=True)
    work(study, run=train, poll=0.01)
    return study


def test_a_journal_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    study = Study(suite(), tmp_path / "s", begin=True)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(study.queue._storage, "create_new_trial", full)
    with pytest.raises(OutputError, match="got No space left on device"):
        work(study, run=train)


def test_one_unit_is_not_taken_by_two(tmp_path):
    study = Study(suite(), tmp_path / "s", begin=True)
    other = queue.Queue(study.folder, "small")
    claimed = study.queue.claim("x")
    assert claimed is not None
    assert other.claim("x") is None
    assert other.claim("y") is not None
    study.queue.end(claimed, "dropped")
    claimed = other.claim("x")
    assert claimed is not None
    other.end(claimed, "failed", "since one looked")
    assert study.queue.claim("x") is None
    study.queue.forgive()
    assert study.queue.claim("x") is not None


def test_a_silent_worker_of_another_machine_is_dead_after_a_while(tmp_path, monkeypatch):
    study = Study(suite(), tmp_path / "s", begin=True)
    monkeypatch.setattr(queue, "holder", lambda: {"host": "elsewhere", "pid": 1, "born": 0.0, "beat": 0})
    claimed = study.queue.claim("x")
    now = time.monotonic()
    monkeypatch.setattr(leases.time, "monotonic", lambda: now)
    here = queue.Queue(study.folder, "small")
    assert [attempt.state for attempt in here.attempts()] == ["running"]
    now += leases.SILENCE_SECONDS - 1
    study.queue.beat(claimed, 1)
    assert [attempt.state for attempt in here.attempts()] == ["running"]
    now += leases.SILENCE_SECONDS - 1
    assert [attempt.state for attempt in here.attempts()] == ["running"]
    now += 2
    assert [attempt.state for attempt in here.attempts()] == ["died"]
    study.queue.beat(claimed, 2)  # it was only slow
    assert [attempt.state for attempt in here.attempts()] == ["running"]


def test_a_worker_lives_whatever_the_clock_says_and_not_after_its_end(tmp_path, monkeypatch):
    study = Study(suite(), tmp_path / "s", begin=True)
    assert study.queue.claim("x") is not None
    monkeypatch.setattr(leases.psutil.Process, "create_time", lambda _: 0.0)  # the clock was set since
    assert [attempt.state for attempt in queue.Queue(study.folder, "small").attempts()] == ["running"]
    worker = AT_ONCE.Process(target=lambda: queue.Queue(study.folder, "small").claim("y"))
    worker.start()
    while leases._born(worker.pid) is not None:
        time.sleep(0.01)  # nobody asks for its end, as in a container without an init
    assert [attempt.state for attempt in study.queue.attempts()] == ["running", "died"]
    worker.join()


def test_beats_go_on_while_a_run_does(monkeypatch):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.01)
    beats = []
    with leases.beating(lambda number: not beats.append(number)):
        time.sleep(0.1)
    seen = len(beats)
    assert seen >= 2
    time.sleep(0.05)
    assert len(beats) == seen


def test_half_a_line_in_the_journal_is_cut_off(tmp_path):
    study = done(tmp_path / "s", suite(methods={"lora": {"name": "lora"}}))
    journal = study.folder / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:20])
    again = done(tmp_path / "s")
    assert all(entry.records() for entry in again.progress())
    assert journal.read_bytes().startswith(whole)
    for line in journal.read_text().splitlines():
        json.loads(line)


def test_a_database_in_place_of_the_journal_is_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "sqlite:///queue.db"
    small = suite(methods={"lora": {"name": "lora"}}, tasks={"one": {}}, budgets=[4])
    study = Study(small, tmp_path / "s", url, begin=True)
    work(study, run=train)
    assert [entry.count("done") for entry in study.progress()] == [5]
    assert not (study.folder / "journal.log").exists()
    monkeypatch.chdir(tmp_path / "s")  # the URL was of another folder
    again = Study(small, tmp_path / "s")
    assert [entry.count("done") for entry in again.progress()] == [5]
    assert len(again.queue.attempts()) == 5
    with pytest.raises(OutputError, match=r"--storage: expected the queue of small where it was begun, sqlite:///.*/q"):
        Study(small, tmp_path / "s", "sqlite:///other.db")
    assert not Path("other.db").exists()
    (tmp_path / "queue.db").unlink()
    with pytest.raises(
        OutputError, match=r"queue\.db: expected the queue of the study small, got nothing there \(give --"
    ):
        Study(small, tmp_path / "s")
    assert [
        entry.count("done") for entry in Study(small, tmp_path / "s", f"sqlite:///{tmp_path}/queue.db").progress()
    ] == [5]


def test_another_version_is_refused(tmp_path, monkeypatch):
    done(tmp_path / "s", suite(methods={"lora": {"name": "lora"}}))
    monkeypatch.setattr(queue, "__version__", "99.0")
    with pytest.raises(ConfigError, match=r"study small: expected randlora .*, which began it, got randlora 99\.0"):
        Study(suite(), tmp_path / "s", begin=True)


def test_a_database_is_not_shared_by_studies_of_one_name(tmp_path):
    url = f"sqlite:///{tmp_path}/queue.db"
    small = suite(methods={"lora": {"name": "lora"}}, tasks={"one": {}})
    work(Study(small, tmp_path / "s", url, begin=True), run=train)
    with pytest.raises(
        OutputError, match=r"--storage: expected a queue for .* small in .*/other, got that of another f"
    ):
        Study(small, tmp_path / "other", url, begin=True)
    assert not (tmp_path / "other").exists()
    assert Study(small, tmp_path / "s", url, begin=True).progress()


def test_what_is_no_queue_of_a_study_is_one_line(tmp_path):
    study = done(tmp_path / "s", suite(methods={"lora": {"name": "lora"}}, tasks={"one": {}}))
    (study.folder / "inputs.json").write_text("[1]")
    with pytest.raises(OutputError, match=r"inputs\.json: expected what a study writes"):
        work(study, run=train)
    lines = (study.folder / "journal.log").read_text().splitlines(keepends=True)
    (study.folder / "journal.log").write_text("".join([*lines[:3], "\0" * 8 + "\n", *lines[4:]]))  # as of a power cut
    with pytest.raises(OutputError, match=r"journal\.log: expected a journal of Optuna.*remove it"):
        Study(study.suite, study.folder)
    (study.folder / "journal.log").write_text("{no journal\n")
    with pytest.raises(OutputError, match=r"journal\.log: expected a journal of Optuna.*remove it"):
        Study(study.suite, study.folder)
    (study.folder / "journal.log").unlink()
    (study.folder / "inputs.json").unlink()
    assert work(Study(study.suite, study.folder), run=train) == 0
    url = f"sqlite:///{tmp_path}/own.db"
    mine = optuna.create_study(storage=url, study_name="small")
    mine.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(ConfigError, match="study small: expected a queue of randlora, got another study of Optuna"):
        Study(suite(), tmp_path / "new", url, begin=True)
    assert not (tmp_path / "new" / "study.json").exists()
