"""What lies in the folders that a report is about: finished runs, searches, results of analyses."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from randlora.analysis.folder import ANALYSES
from randlora.errors import CheckpointError, ConfigError, RandLoraError
from randlora.files import expanded
from randlora.messages import note, printable
from randlora.report.page.studies import STUDY, FoundStudy, StudyCell, read_study
from randlora.training.config.file import load_config
from randlora.training.config.sections import TrainConfig
from randlora.training.language import e2e, harness
from randlora.training.run.folder import CONFIG
from randlora.training.run.record import FILE_NAME as RECORD
from randlora.training.run.record import Record
from randlora.training.search import FILE_NAME as SEARCH

_INSIDE = {"adapter", "checkpoints"}
"""Folders of a run that hold no other run."""
SUITE_FILES = ("commonsense-fixed.json", "commonsense-faithful.json", e2e.FILE_NAME, harness.FILE_NAME)
"""What `randlora evaluate` writes into a run's folder for suites."""
_PLOTTED = ("trainable_parameters", "adapter_bytes", "train_seconds", "step_seconds_median", "peak_memory_bytes")
LARGEST = 1e18
"""No record of ours has a larger number; those that are, or are not finite, are not drawn."""


@dataclass(frozen=True)
class FoundRun:
    """A finished run.

    Attributes:
        name: What it is called on the page: its path from the folder that was given.
        path: Its folder.
        config: Its config.
        text: The config as it was written.
        record: Its record.
        suites: Files that evaluations on suites left in its folder, with what they hold.
        cell: Its place in a study; None outside of one.
    """

    name: str
    path: Path
    config: TrainConfig
    text: str
    record: Record
    suites: dict[str, Any] = field(default_factory=dict)
    cell: StudyCell | None = None

    @property
    def rate(self) -> float:
        """Its learning rate."""
        return self.config.optimization.learning_rate or math.nan


@dataclass(frozen=True)
class FoundAnalysis:
    """A file that `randlora analyze` wrote.

    Attributes:
        name: Which analysis.
        path: The file.
        content: What it holds.
    """

    name: str
    path: Path
    content: dict[str, Any]


@dataclass
class Findings:
    """All that was found.

    Attributes:
        runs: The finished runs, by name.
        analyses: The analyses, in the order of their folders.
        diverged: Folder of a search -> learning rates at which its runs diverged.
        studies: The studies, in the order of their folders.
        passed_over: What could not be read, a line each.
    """

    runs: list[FoundRun] = field(default_factory=list)
    analyses: list[FoundAnalysis] = field(default_factory=list)
    diverged: dict[Path, list[float]] = field(default_factory=dict)
    studies: list[FoundStudy] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def find(paths: Sequence[str | Path]) -> Findings:
    """Read runs and analyses.

    A run that is named itself has to be whole. In a folder that holds runs, those that are unfinished or damaged are
    passed over with a line each.

    Args:
        paths: Folders of runs, and folders with runs or analyses at any depth.

    Raises:
        CheckpointError: A run that is named is unfinished or damaged.
        ConfigError: A path is no folder, or nothing is found.
    """
    found = Findings()
    seen: set[Path] = set()
    for path in paths:
        root = expanded(path)
        if not root.is_dir():
            got = "a file" if root.exists() else "nothing there"
            raise ConfigError(str(path), expected="a run's folder, or one with runs", got=got)
        before = len(seen)
        for folder, names in _walk(root):
            if folder.resolve() not in seen and names & {CONFIG, RECORD, SEARCH, STUDY, *_files()}:
                seen.add(folder.resolve())
                _read(folder, names, root, found)
        if len(seen) == before and not any(folder.resolve() in seen for folder, _ in _walk(root)):
            raise ConfigError(str(path), expected="a run's folder, or one with runs", got="no run in it")
    if not found.runs and not found.analyses:
        got = found.passed_over[0] if found.passed_over else "none"
        raise ConfigError("runs", expected="a finished run or an analysis", got=got)
    for line in found.passed_over:
        note(f"passed over: {line}")
    found.runs = _named([_placed(run, found.studies) for run in found.runs])
    return found


def _placed(run: FoundRun, studies: Sequence[FoundStudy]) -> FoundRun:
    """A run of a study, by its place there: its folder's name is a digest, which says nothing."""
    folder = run.path.resolve()
    for study in studies:
        if folder in study.runs:
            cell, words = study.runs[folder]
            return replace(run, cell=cell, name=words if len(studies) == 1 else f"{cell.study}: {words}")
    return run


def _walk(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """The folders below one, itself first, with the names of their files; links are not followed."""
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _INSIDE)
        yield Path(place), set(files)


def _files() -> set[str]:
    return {f"{name}.json" for name in ANALYSES}


def _read(folder: Path, names: set[str], root: Path, found: Findings) -> None:
    """Add what one folder holds."""
    if names & {CONFIG, RECORD}:
        name = folder.resolve().name if folder == root else folder.relative_to(root).as_posix()
        try:
            run = _run(folder, printable(name))
            run.suites.update(_contents(folder, names & set(SUITE_FILES), found))
            found.runs.append(run)
        except RandLoraError as error:
            if folder == root:
                raise
            words = "unfinished" if RECORD not in names else str(error)
            found.passed_over.append(f"{printable(str(folder))}: {words}" if RECORD not in names else words)
    if STUDY in names:
        _read_study(folder, found)
    if SEARCH in names:
        try:
            rates: dict[str, Any] = json.loads((folder / SEARCH).read_text(encoding="utf-8"))["validation"]
            found.diverged[folder.resolve()] = [float(rate) for rate, value in rates.items() if value is None]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            found.passed_over.append(f"{printable(str(folder / SEARCH))}: {type(error).__name__}")
    contents = _contents(folder, names & _files(), found)
    found.analyses += [FoundAnalysis(Path(file).stem, folder / file, content) for file, content in contents.items()]


def _read_study(folder: Path, found: Findings) -> None:
    """Add a study; the runs of one that cannot be read are runs like others."""
    try:
        found.studies.append(read_study(folder))
    except RandLoraError as error:
        reason = str(error)
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # Optuna's, of a damaged queue
        reason = type(error).__name__
    else:
        return
    found.passed_over.append(f"{printable(str(folder))}: shown as runs, not as a study ({reason})")


def _contents(folder: Path, names: set[str], found: Findings) -> dict[str, dict[str, Any]]:
    """What JSON files hold, by name; those that hold no object are passed over."""
    read = {name: _content(folder / name, found) for name in sorted(names)}
    return {name: content for name, content in read.items() if content is not None}


def _content(path: Path, found: Findings) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        found.passed_over.append(f"{printable(str(path))}: {type(error).__name__}")
        return None


def _run(folder: Path, name: str) -> FoundRun:
    config = load_config(folder / CONFIG)
    record = Record.load(folder)
    for key in _PLOTTED:
        if not abs(getattr(record, key)) < LARGEST:
            raise CheckpointError(str(folder / RECORD), expected=f"a {key} that can be", got="another")
    return FoundRun(name, folder, config, (folder / CONFIG).read_text(encoding="utf-8"), record)


def _named(runs: list[FoundRun]) -> list[FoundRun]:
    """The runs by name; those of one name are called by their whole path."""
    names = [run.name for run in runs]
    unique = [run if names.count(run.name) == 1 else replace(run, name=printable(str(run.path))) for run in runs]
    return sorted(unique, key=lambda run: run.name)
