import errno
import gc
import multiprocessing
import os
import signal
import time
import weakref
from pathlib import Path

import pytest
from torch import nn

from randlora.errors import ConfigError, OutputError
from randlora.report.study import study_in_json
from randlora.studies import queue
from randlora.studies.interruption import interrupted_by_signals
from randlora.studies.study import Study
from randlora.studies.table import study_table
from randlora.studies.worker import work
from study_stand_in import DIVERGED, failing_at, slowly, suite, train, trained_times

ONE_CELL = {"tasks": {"one": {}}, "methods": {"lora": {"name": "lora"}}}
AT_ONCE = multiprocessing.get_context("fork")


def done(folder, found=None, **options):
    study = Study(found or suite(), folder, begin=True)
    work(study, run=options.pop("run", train), poll=0.01, **options)
    return study


def test_a_study_is_run_once(tmp_path):
    study = done(tmp_path / "s")
    chosen = {entry.cell.row: entry.chosen for entry in study.progress()}
    assert chosen["lora as_lora=4"] == 3e-3
    assert chosen["full"] == 1e-4
    assert all(entry.count("done") == len(entry.units) for entry in study.progress())
    for entry in study.progress():
        assert [record.seed for record in entry.records()] == [0, 1]
    times = trained_times(study.folder)
    before = (study.folder / "journal.log").stat().st_size
    assert work(study, run=failing_at(3e-3)) == 0
    assert trained_times(study.folder) == times
    assert (study.folder / "journal.log").stat().st_size == before


def test_what_is_added_is_all_that_is_run(tmp_path):
    small = suite(methods={"lora": {"name": "lora"}}, seeds=[0])
    done(tmp_path / "s", small)
    before = trained_times(tmp_path / "s")
    done(tmp_path / "s", suite())  # methods, and a seed
    after = trained_times(tmp_path / "s")
    assert {key: after[key] for key in before} == before
    assert len(after) > len(before)
    done(tmp_path / "s", small)  # cells that are no more
    assert trained_times(tmp_path / "s") == after


def test_a_worker_says_that_the_suite_was_planned_anew(tmp_path, caplog):
    study = done(tmp_path / "s", suite(methods={"lora": {"name": "lora"}}))
    assert "planned anew" not in caplog.text
    Study(suite(), tmp_path / "s", begin=True)
    work(study, run=train)
    assert "suite.yaml: planned anew since this worker began" in caplog.text


def test_cells_with_the_same_run_share_it(tmp_path):
    found = suite(methods={"lora": {"name": "lora"}, "twin": {"name": "lora", "alpha": 8.0}}, budgets=[4])
    done(tmp_path / "s", found)
    alone = suite(methods={"lora": {"name": "lora"}}, budgets=[4])
    done(tmp_path / "other", alone)
    assert len(trained_times(tmp_path / "s")) == len(trained_times(tmp_path / "other"))


def test_a_failure_is_written_down_and_stops_its_cell_alone(tmp_path, caplog):
    study = done(tmp_path / "s", run=failing_at(1e-4))
    entries = {(entry.cell.column, entry.cell.row): entry for entry in study.progress()}
    failed = [outcome for entry in entries.values() for _, outcome in entry.units if outcome.state == "failed"]
    assert [outcome.error for outcome in failed] == ["model: expected one that loads, got none"] * 2
    assert "one, full, learning rate 0.0001, seed 0: model: expected" in caplog.text
    assert caplog.text.count("model: expected one that loads") == 1  # of two runs
    assert entries["one", "full"].chosen is None
    assert entries["one", "lora as_lora=4"].count("done") == 5
    assert any("2 of 6 cells failed" in line for line in study_table(study).summary)
    before = trained_times(tmp_path / "s")
    assert work(study, run=train) == 0  # not again by itself
    work(study, retry_failed=True, run=train)
    assert not any(entry.count("failed") for entry in study.progress())
    assert {key: trained_times(tmp_path / "s")[key] for key in before} == before


def test_a_divergence_is_a_result(tmp_path):
    study = done(tmp_path / "s", run=failing_at(1e-3, DIVERGED))
    chosen = {entry.cell.row: entry for entry in study.progress()}
    assert chosen["randlora as_lora=4"].scores[1e-3] is None
    assert chosen["randlora as_lora=4"].chosen == 3e-3
    assert not any(entry.count("failed") for entry in study.progress())


def test_a_run_that_leaves_no_record_has_failed(tmp_path):
    study = done(tmp_path / "s", suite(methods={"lora": {"name": "lora"}}), run=lambda *_, **__: None)
    assert [entry.count("failed") for entry in study.progress()] == [3, 3]


def test_a_seed_that_diverged_leaves_the_cell_without_a_mean(tmp_path):
    def run(config, *, score_test):
        if config.seed == 1:
            raise DIVERGED
        return train(config, score_test=score_test)

    cells = study_table(done(tmp_path / "s", run=run)).data["cells"]
    assert {(cell["state"], cell["mean"], len(cell["values"])) for cell in cells} == {("diverged", None, 1)}


def test_an_unexpected_error_is_one_line(tmp_path, caplog):
    study = done(tmp_path / "s", run=failing_at(1e-4, ValueError("two\nlines")))
    assert "ValueError: two lines" in caplog.text
    assert {entry.count("failed") for entry in study.progress()} == {0, 1}


def test_a_full_disk_stops_the_worker_and_fails_no_run(tmp_path):
    study = Study(suite(), tmp_path / "s", begin=True)

    def full(config, *, score_test):
        raise OutputError(config.output) from OSError(errno.ENOSPC, "No space left on device", config.output)

    with pytest.raises(OutputError, match=r"s: expected a folder that can be written, got No space left.*make room"):
        work(study, run=full)
    assert not any(entry.count("running", "failed") for entry in study.progress())
    assert work(study, run=train) > 0


def test_an_interrupted_run_is_left_for_others(tmp_path):
    study = Study(suite(), tmp_path / "s", begin=True)
    with pytest.raises(KeyboardInterrupt):
        work(study, run=failing_at(3e-3, KeyboardInterrupt()))
    assert not any(entry.count("running", "failed") for entry in study.progress())
    work(study, run=train)
    assert all(entry.records() for entry in study.progress())


def _worker(folder, how, found=None):
    work(Study(found or suite(), folder, begin=True), run=how, poll=0.02)


@pytest.mark.slow
def test_a_killed_worker_leaves_no_trace_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "_GRACE_SECONDS", 6)  # one may die as it writes; a live one may wait for its core
    undisturbed = done(tmp_path / "s" / "undisturbed")
    folder = tmp_path / "disturbed"
    workers = [AT_ONCE.Process(target=_worker, args=(folder, slowly)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in range(2):  # one after the other dies in the middle of a run
        time.sleep(0.4)
        victim = workers.pop(0)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        workers.append(AT_ONCE.Process(target=_worker, args=(folder, slowly)))
        workers[-1].start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    disturbed = Study(suite(), folder)
    assert study_in_json(study_table(disturbed)) == study_in_json(study_table(undisturbed))
    # A run may have been done twice only where its worker died at it.
    assert sum(trained_times(folder).values()) <= sum(trained_times(undisturbed.folder).values()) + 2


def test_what_others_have_done_since_one_looked_is_not_done_again(tmp_path, monkeypatch):
    study = Study(suite(tasks={"one": {}}, methods={"lora": {"name": "lora"}}), tmp_path / "s", begin=True)
    other = Study(study.suite, study.folder)
    ordinary, failed = study.queue.claim, failing_at(3e-3)
    calls = []

    def claim(unit, begun_at):
        if not calls:  # the other process does all there is to do just then, but for a run that fails
            calls.append(work(other, run=failed, poll=0.01))
        return ordinary(unit, begun_at)

    monkeypatch.setattr(study.queue, "claim", claim)
    assert work(study, run=failed) == 0
    assert set(trained_times(study.folder).values()) == {1}
    assert sum(attempt.state == "failed" for attempt in study.queue.attempts()) == 1


def test_a_damaged_record_is_named_with_what_mends_it(tmp_path):
    study = done(tmp_path / "s", suite(methods={"lora": {"name": "lora"}}, tasks={"one": {}}))
    (folder, *_) = (study.folder / "runs").iterdir()
    (folder / "record.json").write_text("{")
    (entry,) = Study(study.suite, study.folder).progress()
    (error,) = {outcome.error for _, outcome in entry.units if outcome.state == "failed"}
    assert error.endswith(f"; remove {folder} to run it again")


def test_what_is_no_folder_of_this_study_is_refused(tmp_path):
    done(tmp_path / "s", suite(methods={"lora": {"name": "lora"}}))
    with pytest.raises(OutputError, match="or that of the study other, got that of the study small"):
        Study(suite(name="other"), tmp_path / "s", begin=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="got one that holds other files"):
        Study(suite(), tmp_path / "full", begin=True)
    (tmp_path / "s" / "study.json").write_text("{")
    with pytest.raises(OutputError, match="expected what a study writes"):
        Study(suite(), tmp_path / "s")
    with pytest.raises(ConfigError, match="--storage: expected the URL of a database"):
        Study(suite(), tmp_path / "new", "no-url", begin=True)
    assert Study(suite(), tmp_path / "new", begin=True).progress()  # and nothing is left of it


def test_a_study_that_was_not_begun_has_no_runs_and_makes_no_folder(tmp_path):
    study = Study(suite(), tmp_path / "s")
    assert {entry.count("missing") for entry in study.progress()} == {3}
    assert not (tmp_path / "s").exists()
    assert Path(Study(suite()).folder) == Path("runs/study/small")


def _dies(config, *, score_test):
    if config.optimization.learning_rate == 3e-3:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(config, score_test=score_test)


def _dies_further_on(config, *, score_test):
    """As if two checkpoints were written before the end, each time."""
    folder = Path(config.output) / "checkpoints"
    steps = 1 + len(list(folder.glob("checkpoint-*")))
    if config.optimization.learning_rate == 3e-3 and steps < 6:
        for name in (f"checkpoint-{steps}", f"search/checkpoint-{steps}"):
            (folder / name).mkdir(parents=True)
            (folder / name / "progress.json").write_text("{}")
        os.kill(os.getpid(), signal.SIGKILL)
    return train(config, score_test=score_test)


def _worked_until_it_lives(folder, run):
    """How many processes died before one came to the end of the study, and its exit code."""
    for died in range(20):
        worker = AT_ONCE.Process(target=_worker, args=(folder, run, suite(**ONE_CELL)))
        worker.start()
        worker.join()
        if worker.exitcode != -signal.SIGKILL:
            return died, worker.exitcode
    raise AssertionError("a run is tried for ever")


def test_a_run_that_its_processes_die_of_is_given_up(tmp_path):
    study = Study(suite(**ONE_CELL), tmp_path / "s", begin=True)
    assert _worked_until_it_lives(study.folder, _dies) == (3, 0)
    ((line, unit),) = [
        (outcome.error, unit.words)
        for entry in study.progress()
        for unit, outcome in entry.units
        if outcome.state == "failed"
    ]
    assert "learning rate 0.003" in unit
    assert line.startswith("3 processes died at it before its first checkpoint, the last of them process ")
    assert line.endswith("without an error (is there memory enough? --retry-failed tries again)")
    assert _worked_until_it_lives(study.folder, _dies) == (0, 0)
    work(study, retry_failed=True, run=train, poll=0.01)
    assert not any(entry.count("failed", "missing") for entry in study.progress())


def test_deaths_from_before_a_retry_do_not_count(tmp_path):
    study = Study(suite(**ONE_CELL), tmp_path / "s", begin=True)
    assert _worked_until_it_lives(study.folder, _dies) == (3, 0)
    study.queue.forgive()
    assert _worked_until_it_lives(study.folder, _dies) == (3, 0)


def test_a_run_that_gets_further_each_time_is_not_given_up(tmp_path):
    study = Study(suite(**ONE_CELL), tmp_path / "s", begin=True)
    assert _worked_until_it_lives(study.folder, _dies_further_on) == (10, 0)  # of two seeds
    assert not any(entry.count("failed", "missing") for entry in study.progress())


def _asked_to_end(folder, number):
    signal.signal(number, signal.SIG_DFL)  # what started the tests may ignore it, as nohup does

    def run(config, *, score_test):
        os.kill(os.getpid(), number)
        time.sleep(60)

    with interrupted_by_signals():
        try:
            work(Study(suite(), folder, begin=True), run=run, poll=0.01)
        except KeyboardInterrupt:
            os._exit(7)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_worker_that_is_asked_to_end_gives_its_run_back_and_has_not_died(tmp_path, name):
    study = Study(suite(), tmp_path / "s", begin=True)
    for _ in range(4):
        worker = AT_ONCE.Process(target=_asked_to_end, args=(study.folder, getattr(signal, name)))
        worker.start()
        worker.join(30)
        assert worker.exitcode == 7
    assert [attempt.state for attempt in study.queue.attempts()] == ["dropped"] * 4
    work(study, run=train, poll=0.01)
    assert not any(entry.count("failed", "missing") for entry in study.progress())


def test_signals_that_somebody_has_use_for_are_left():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup's
    try:
        with interrupted_by_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_nothing_of_a_run_is_left_when_the_next_begins_or_the_worker_waits(tmp_path):
    """Not of one that failed either; a Trainer and its model hold each other."""
    left = []

    def run(config, *, score_test):
        assert not [model for model in left if model() is not None]
        model, trainer = nn.Linear(3, 3), nn.Module()
        trainer.__dict__["model"], model.__dict__["trainer"] = model, trainer
        left.append(weakref.ref(model))
        return failing_at(1e-4)(config, score_test=score_test)

    gc.disable()
    try:
        done(tmp_path / "s", run=run)
    finally:
        gc.enable()
    assert len(left) > 10
    assert not [model for model in left if model() is not None]
