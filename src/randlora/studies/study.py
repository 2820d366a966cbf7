"""A study: a suite, its folder, and what is known of its runs."""

import json
from pathlib import Path

from randlora.errors import CheckpointError, OutputError
from randlora.files import expanded, write_if_new, writing
from randlora.studies.cells import cells_of
from randlora.studies.progress import Outcome, Progress, State, Unit, progress_of
from randlora.studies.queue import Queue
from randlora.studies.schema import SUITE_FILE, in_yaml
from randlora.studies.scores import scores_of
from randlora.studies.storage import OWN, begun, check_there, place_of
from randlora.studies.suite import Suite
from randlora.training.run import Record
from randlora.training.run.record import FILE_NAME as RECORD

ROOT = "runs/study"


class Study:
    """A suite in its folder.

    Args:
        suite: The suite.
        output: The study's folder; None means `runs/study/NAME`.
        storage: URL of a database that holds the queue. None means where it was begun, or a journal in the folder.
        begin: Whether to `begin` it; else a study that was not begun has no runs.

    Attributes:
        suite: The suite.
        folder: The study's folder.
        cells: Of the suite.
        queue: None where the study was not begun.

    Raises:
        ConfigError: The study was begun by another version of this package, or the database cannot be opened.
        OutputError: The folder holds another study or other files, has its queue elsewhere, or cannot be written.
    """

    def __init__(
        self, suite: Suite, output: str | Path | None = None, storage: str | None = None, *, begin: bool = False
    ) -> None:
        self.suite, self.cells = suite, cells_of(suite)
        self.folder = study_folder(suite, output)
        self._place = place_of(storage)
        known = self._known_place()
        if known is not None and storage is None and known != self._place:
            storage = self._place = known
            check_there(known, suite.name)
        elif known is not None and known != self._place:
            expected = f"the queue of {suite.name} where it was begun, {known}"
            raise OutputError("--storage", expected=expected, got="another", hint="it need not be given again")
        self._storage = storage
        self.queue = Queue(self.folder, suite.name, storage) if known is not None else None
        self._done: dict[str, Outcome] = {}
        if begin:
            self.begin()

    def begin(self) -> None:
        """Make the folder and the queue, where there are none, and write the suite.

        Raises:
            ConfigError: See `Study`.
            OutputError: Likewise.
        """
        if self._storage is not None:  # first, lest the folder belong to a queue that cannot be had
            self.queue = self.queue or Queue(self.folder, self.suite.name, self._storage)
            if self.queue.attempts() and not (self.folder / OWN).is_file():  # which is written before anything is run
                expected = f"a queue for the study {self.suite.name} in {self.folder}"
                hint = "name the suite otherwise, or take another database"
                raise OutputError("--storage", expected=expected, got="that of another folder", hint=hint)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            own = {"study": self.suite.name, "queue": self._place}
            write_if_new(self.folder / OWN, json.dumps(own, indent=1) + "\n")
        self.queue = self.queue or Queue(self.folder, self.suite.name, self._storage)
        with writing(self.folder):
            write_if_new(self.folder / SUITE_FILE, in_yaml(self.suite))

    def run_folder(self, unit: Unit) -> Path:
        """Where a unit's run lies."""
        return self.folder / "runs" / unit.key

    def progress(self) -> list[Progress]:
        """How far every cell is, now."""
        attempts = self.queue.attempts() if self.queue else []
        latest = {entry.unit: entry for entry in attempts if entry.state not in ("dropped", "died")}

        def outcome_of(unit: Unit) -> Outcome:
            done = self._record(unit)
            if done is not None:
                return done
            known = latest.get(unit.name)
            if known is None or known.state == "done":  # the run's folder has been removed since
                return Outcome("missing")
            state: State = known.state  # type: ignore[assignment]
            return Outcome(state, error=known.error)

        return [progress_of(cell, outcome_of) for cell in self.cells]

    def is_as_planned(self) -> bool:
        """Whether the folder still holds this suite: `study run` may have planned another since."""
        return (self.folder / SUITE_FILE).read_text(encoding="utf-8") == in_yaml(self.suite)

    def is_done(self, unit: Unit) -> bool:
        """Whether a unit's run is there, with what was asked of it."""
        found = self._record(unit)
        return found is not None and found.state == "done"

    def seconds(self) -> list[float]:
        """How long each finished training took."""
        attempts = self.queue.attempts() if self.queue else []
        return [entry.seconds for entry in attempts if entry.seconds and entry.state == "done"]

    def _record(self, unit: Unit) -> Outcome | None:
        """What a finished run says; it is read once."""
        if unit.name not in self._done:
            folder = self.run_folder(unit)
            if not (folder / RECORD).is_file():
                return None
            try:
                record = Record.load(folder)
            except CheckpointError as error:
                return Outcome("failed", error=f"{error}; remove {folder} to run it again")
            if unit.scores_test and f"test_{record.goal}" not in record.metrics:
                return None
            scores = scores_of(folder, self.suite.score) if unit.scores_test and self.suite.score else {}
            if scores is None:
                return None
            self._done[unit.name] = Outcome("done", record, scores=scores)
        return self._done[unit.name]

    def _known_place(self) -> str | None:
        """Where the queue of the folder's study lies; None where none was begun."""
        expected = f"a new or empty folder, or that of the study {self.suite.name}"
        hint = "choose another --output"
        known = begun(self.folder)
        if known is None:
            if self.folder.exists() and not self.folder.is_dir():
                raise OutputError(str(self.folder), expected=expected, got="a file", hint=hint)
            if self.folder.is_dir() and any(map(_is_foreign, self.folder.iterdir())):
                raise OutputError(str(self.folder), expected=expected, got="one that holds other files", hint=hint)
            return None
        name, place = known
        if name != self.suite.name:
            raise OutputError(str(self.folder), expected=expected, got=f"that of the study {name}", hint=hint)
        return place


def study_folder(suite: Suite, output: str | Path | None) -> Path:
    """Where a suite's study lies.

    Args:
        suite: The suite.
        output: What the user wants; None means `runs/study/NAME`.
    """
    return expanded(output or Path(ROOT) / suite.name)


def _is_foreign(path: Path) -> bool:
    """Whether a file is other than what is left of a study that was killed as it began."""
    return not (path.name.startswith(f".{OWN}.") and path.name.endswith(".tmp"))
