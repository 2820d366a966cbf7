"""A worker: it takes units until none are left; what fails is written down and does not stop the rest."""

import errno
import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from randlora.errors import RandLoraError, TrainingError
from randlora.files import is_full_disk, writing
from randlora.messages import note
from randlora.studies.cells import naming
from randlora.studies.inputs import at_commits, check_inputs
from randlora.studies.leases import beating
from randlora.studies.progress import Progress, Unit
from randlora.studies.queue import Queue
from randlora.studies.study import Study
from randlora.tasks.bars import progress_bar
from randlora.training.config import TrainConfig, validate
from randlora.training.run import train

POLL_SECONDS = 2.0
"""How long a worker waits that has nothing to do before it looks again what others have finished."""

Run = Callable[..., Any]


def check_here(study: Study) -> None:
    """Check everything that can be known of every cell on this machine: data, model folders, hardware.

    Raises:
        RandLoraError: A cell cannot be run here.
    """
    for cell in study.cells:
        with naming(f"{cell.column}, {cell.row}"):
            validate(replace(cell.config, output=str(study.folder / "runs")))


def _train(config: TrainConfig, *, score_test: bool) -> None:
    train(config, score_test=score_test)
    gc.collect()  # a model is a circle of references, and the next one needs its place


def work(study: Study, *, retry_failed: bool = False, run: Run = _train, poll: float = POLL_SECONDS) -> int:
    """Take runs until none are left that this process could do, now or later.

    Args:
        study: The study, begun.
        retry_failed: Let what has failed so far count for nothing.
        run: What trains a config, and is given `score_test`.
        poll: Seconds between two looks, while others are at all that is left.

    Returns:
        How many runs this process has done.

    Raises:
        OutputError: What finished runs were trained on has changed, or the study's folder cannot be written any more.
    """
    queue = study.queue
    if queue is None:
        raise ValueError("the study is not begun")
    check_inputs(study, study.progress(), (cell.config for cell in study.cells))
    with writing(study.folder, hint="make room; the same command again goes on where it was"):
        if retry_failed:
            queue.forgive()
        return _take_all(study, queue, run, poll)


def _take_all(study: Study, queue: Queue, run: Run, poll: float) -> int:
    done = 0
    with progress_bar(study.suite.name, "run") as bar:
        while True:
            found = study.progress()
            _show(bar, study, found)
            units = (known for entry in found for known in entry.units)
            missing = {unit.name: unit for unit, outcome in units if outcome.state == "missing"}
            if not missing:
                if not any(entry.count("running") for entry in found):
                    return done
                time.sleep(poll)
                continue
            for unit in missing.values():
                check_inputs(study, found, [unit.config])
                claimed = queue.claim(unit.name)
                if claimed is not None:
                    done += _attempt(study, queue, unit, claimed, run)
                    break


def _attempt(study: Study, queue: Queue, unit: Unit, claimed: int, run: Run) -> bool:
    """Do a unit; whether it is done."""
    if study.is_done(unit):  # by another, since this process looked
        queue.end(claimed, "dropped")
        return False
    config = replace(unit.config, output=str(study.run_folder(unit)))
    began = time.monotonic()
    try:
        with beating(partial(queue.beat, claimed)):
            config = at_commits(study, config)
            run(config, score_test=unit.scores_test)
    except (KeyboardInterrupt, SystemExit):
        queue.end(claimed, "dropped")
        raise
    except Exception as error:
        if is_full_disk(error):  # the next run would find it full too, and the one after it
            with suppress(OSError):
                queue.end(claimed, "dropped")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        if queue.is_held(unit.name, but=claimed):  # this process had been taken for dead, or took the other for it
            queue.end(claimed, "dropped")
            return False
        line = _in_a_line(error)
        note(f"{unit.words}: {line}")
        queue.end(claimed, "diverged" if isinstance(error, TrainingError) else "failed", line)
        return False
    if not study.is_done(unit):  # else it would be taken again and again
        queue.end(claimed, "failed", f"{study.run_folder(unit)}: no record of a finished run")
        return False
    queue.end(claimed, "done", seconds=time.monotonic() - began)
    return True


def _in_a_line(error: Exception) -> str:
    if isinstance(error, RandLoraError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    return " ".join(f"{type(error).__name__}: {error}".split())


def _show(bar: Any, study: Study, found: list[Progress]) -> None:
    """Runs done of all that are known to come, and how long the rest will take."""
    over = sum(entry.count("done", "diverged", "failed") for entry in found)
    left = sum(entry.count("missing", "running") + entry.to_come for entry in found)
    bar.total, bar.n = over + left, over
    times = study.seconds()
    if times and left:
        working = 1 + sum(entry.count("running") for entry in found)
        minutes = sum(times) / len(times) * left / working / 60
        words = f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"
        bar.set_postfix_str(words, refresh=False)
    bar.refresh()
