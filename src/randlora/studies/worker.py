"""A worker: it takes units until none are left; what fails is written down and does not stop the rest."""

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from randlora.errors import RandLoraError, TrainingError, out_of_memory
from randlora.files import is_full_disk, writing
from randlora.messages import note
from randlora.studies.cells import naming
from randlora.studies.inputs import at_commits, check_inputs
from randlora.studies.leases import beating
from randlora.studies.progress import Progress, Unit
from randlora.studies.queue import Queue
from randlora.studies.schema import SUITE_FILE
from randlora.studies.scores import score_run
from randlora.studies.study import Study
from randlora.tasks.bars import progress_bar
from randlora.training.config import validate
from randlora.training.run import train
from randlora.training.run.folder import RunFolder
from randlora.training.run.memory import hand_back

POLL_SECONDS = 2.0
"""How long a worker waits that has nothing to do before it looks again what others have finished."""

MOST_DEATHS = 3
"""How many processes may die at a run, one after the other from the same checkpoint, before it counts as failed."""

Run = Callable[..., Any]


def check_here(study: Study) -> None:
    """Check everything that can be known on this machine of every cell that is not over: data, model folders, hardware.

    Raises:
        RandLoraError: A cell cannot be run here.
    """
    for cell in (entry.cell for entry in study.progress() if not entry.is_over):
        with naming(f"{cell.column}, {cell.row}"):
            validate(replace(cell.config, output=str(study.folder / "runs")))


def work(study: Study, *, retry_failed: bool = False, run: Run = train, poll: float = POLL_SECONDS) -> int:
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
        done = _take_all(study, queue, run, poll)
    if not study.is_as_planned():
        note(f"{study.folder / SUITE_FILE}: planned anew since this worker began, which takes none of what is new")
    return done


def _take_all(study: Study, queue: Queue, run: Run, poll: float) -> int:
    done, told = 0, set[str]()
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
                begun_at = RunFolder(study.run_folder(unit)).furthest()
                claimed = queue.claim(unit.name, begun_at)
                if claimed is not None:
                    if not _is_given_up(queue, unit, claimed, begun_at):
                        done += _attempt(study, queue, unit, claimed, run, told)
                        hand_back()  # the next run needs its place, or another process, for which this one may wait
                    break


def _is_given_up(queue: Queue, unit: Unit, claimed: int, begun_at: str) -> bool:
    """Whether so many processes have died at a unit, and none got further, that it is written down as failed."""
    deaths = queue.deaths(unit.name, begun_at)
    if len(deaths) < MOST_DEATHS:
        return False
    where = f"behind {begun_at}" if begun_at else "before its first checkpoint"
    line = f"{len(deaths)} processes died at it {where}, the last of them {deaths[-1].who}, each without an error"
    line += " (is there memory enough? --retry-failed tries again)"
    note(f"{unit.words}: {line}")
    queue.end(claimed, "failed", line)
    return True


def _attempt(study: Study, queue: Queue, unit: Unit, claimed: int, run: Run, told: set[str]) -> bool:
    """Do a unit; whether it is done. Why one failed is told once: a wrong column befalls every cell of a task."""
    if study.is_done(unit):  # by another, since this process looked
        queue.end(claimed, "dropped")
        return False
    config = replace(unit.config, output=str(study.run_folder(unit)))
    began = time.monotonic()
    try:
        with beating(partial(queue.beat, claimed)):
            config = at_commits(study, config)
            run(config, score_test=unit.scores_test)
            if unit.scores_test and study.suite.score is not None:
                score_run(study.run_folder(unit), study.suite.score)
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
        if line not in told:
            note(f"{unit.words}: {line}")
            told.add(line)
        queue.end(claimed, "diverged" if isinstance(error, TrainingError) else "failed", line)
        return False
    if not study.is_done(unit):  # else it would be taken again and again
        queue.end(claimed, "failed", f"{study.run_folder(unit)}: no record of a finished run")
        return False
    queue.end(claimed, "done", seconds=time.monotonic() - began)
    return True


def _in_a_line(error: Exception) -> str:
    lack = out_of_memory(error)
    if lack is not None:
        return lack
    if isinstance(error, RandLoraError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())


def _show(bar: Any, study: Study, found: list[Progress]) -> None:
    over, left = runs_over_and_left(found)
    bar.total, bar.n = over + left, over
    working = 1 + sum(entry.count("running") for entry in found)
    bar.set_postfix_str(time_left(study, left, working), refresh=False)
    bar.refresh()


def runs_over_and_left(found: Sequence[Progress]) -> tuple[int, int]:
    """How many runs have ended, and how many are known to come or under way."""
    over = sum(entry.count("done", "diverged", "failed") for entry in found)
    return over, sum(entry.count("missing", "running") + entry.to_come for entry in found)


def time_left(study: Study, left: int, working: int) -> str:
    """How long runs will take, in words; nothing where none has been done by which it could be told.

    Args:
        study: The study.
        left: Runs to do.
        working: How many workers there are.
    """
    times = study.seconds()
    if not times or not left:
        return ""
    minutes = sum(times) / len(times) * left / max(working, 1) / 60
    return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"
