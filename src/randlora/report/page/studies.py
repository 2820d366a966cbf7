"""A study among the folders of a report: what it calls its runs, what it has found, what failed."""

from dataclasses import dataclass, field
from pathlib import Path

from randlora.errors import CheckpointError
from randlora.messages import printable
from randlora.result import Result

STUDY = "study.json"
"""The file by which a study's folder is known."""


@dataclass(frozen=True)
class StudyCell:
    """A run's place in its study.

    Attributes:
        study: Name of the study.
        task: Name of the task.
        column: The task and its shots, as the study's table has them.
        row: The method and its budget, likewise.
        diverged: Learning rates at which the cell's search saw training diverge.
    """

    study: str
    task: str
    column: str
    row: str
    diverged: tuple[float, ...] = ()


@dataclass(frozen=True)
class FoundStudy:
    """A study, as far as it is done.

    Attributes:
        folder: Where it is.
        result: Its table.
        failed: What was to be run and why it failed, a line each.
        diverged: Where training diverged at which learning rates, a line each.
        runs: Folder of a run -> its place, and what it is in words.
    """

    folder: Path
    result: Result
    failed: list[str] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)
    runs: dict[Path, tuple[StudyCell, str]] = field(default_factory=dict)


def read_study(folder: Path) -> FoundStudy:
    """Read a study in its folder; nothing is run.

    Args:
        folder: The study's folder.

    Raises:
        CheckpointError: Its queue is gone.
        ConfigError: Its suite is damaged, another version of this package began it, or its database cannot be opened.
        OutputError: Likewise.
        ModuleNotFoundError: What studies need is not installed.
    """
    # Studies bring Optuna, which a report without one does not need.
    from randlora.studies.queue import JOURNAL  # noqa: PLC0415
    from randlora.studies.schema import load_suite  # noqa: PLC0415
    from randlora.studies.storage import IN_FOLDER, begun  # noqa: PLC0415
    from randlora.studies.study import Study  # noqa: PLC0415
    from randlora.studies.table import study_table  # noqa: PLC0415

    _, queue = begun(folder) or ("", IN_FOLDER)
    if queue == IN_FOLDER and not (folder / JOURNAL).is_file():  # to open it would make one
        raise CheckpointError(str(folder), expected=f"a study's folder, with {JOURNAL}", got="none there")
    study = Study(load_suite(folder), folder)
    found = FoundStudy(folder, study_table(study))
    for entry in study.progress():
        cell = entry.cell
        diverged = {
            unit.config.optimization.learning_rate or 0.0
            for unit, outcome in entry.units
            if outcome.state == "diverged" and not unit.scores_test
        }
        if diverged:
            rates = ", ".join(f"{rate:g}" for rate in sorted(diverged))
            found.diverged.append(f"{cell.column}, {cell.row}: at {rates}")
        place = StudyCell(study.suite.name, cell.task, cell.column, cell.row, tuple(sorted(diverged)))
        for unit, outcome in entry.units:
            optimization = unit.config.optimization
            words = f"{cell.column}, {cell.row}, {optimization.learning_rate:g}, seed {unit.config.seed}"
            found.runs.setdefault(study.run_folder(unit).resolve(), (place, words))
            if outcome.state == "failed":
                found.failed.append(printable(f"{unit.words}: {outcome.error}"))
    found.failed[:] = dict.fromkeys(found.failed)
    return found
