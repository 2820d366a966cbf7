"""The queue of a study: which runs were begun by whom, in Optuna's storage, which any number of processes may share."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from randlora import __version__
from randlora.errors import ConfigError, OutputError
from randlora.studies.database import Database
from randlora.studies.leases import Watch, holder, in_words

JOURNAL = "journal.log"
_VERSION, _FORGIVEN = "version", "forgiven"
_GRACE_SECONDS = 30
"""After how long the lock of a writer that was killed counts for nothing; to write takes less than one."""


class _Lock(JournalFileOpenLock):
    """Optuna's, which mends the journal: a writer that was killed may have left half a line, to be read by nobody."""

    def __init__(self, path: str) -> None:
        super().__init__(path, _GRACE_SECONDS)
        self._path = path

    def acquire(self) -> bool:
        """Take the lock, and cut off what is behind the last whole line."""
        taken = super().acquire()
        with Path(self._path).open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if size and file.read() != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return taken


@dataclass(frozen=True)
class Attempt:
    """A run that somebody began.

    Attributes:
        number: Counts a study's attempts.
        unit: What was to be run.
        state: "running", "done", "failed", "diverged", "dropped": given up for another to take, or "died": so was its
            process, without a word.
        error: Why it failed, in a line.
        seconds: How long it took; None before its end.
        begun_at: How far the run was when it was begun.
        who: The process, for the reader.
    """

    number: int
    unit: str
    state: str
    error: str
    seconds: float | None
    begun_at: str
    who: str


class Queue:
    """Optuna's storage, as a study uses it: an attempt is a trial, and nothing is sampled.

    An attempt is claimed by writing it down. The storage numbers what is written, so of two processes that claim the
    same unit at once, both know who was first; the other drops its own.

    Args:
        folder: The study's, where the journal lies; it must exist.
        name: The study's.
        url: Of a database that holds the queue in place of the journal, as SQLAlchemy takes it; or None.

    Raises:
        ConfigError: The database cannot be opened, the study was begun by another version of this package, or one of
            its name is somebody else's.
        OutputError: The journal cannot be read or written.
    """

    def __init__(self, folder: Path, name: str, url: str | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        database = None if url is None else Database(url)
        try:
            self._storage: Any = _journal(folder) if database is None else database  # which is read as it is opened
            self._study = self._find(name)
        except (ValueError, KeyError, TypeError) as error:  # lines that no study has written
            hint = "remove it: what is finished is known by the runs' own records"
            got = type(error).__name__
            raise OutputError(str(folder / JOURNAL), expected="a journal of Optuna", got=got, hint=hint) from error
        self._watch = Watch()
        self._check_version(name)

    def attempts(self) -> list[Attempt]:
        """All attempts that count, in their order; those of dead holders are dropped."""
        forgiven = self._storage.get_study_user_attrs(self._study).get(_FORGIVEN, -1)
        found = [self._read(trial) for trial in self._storage.get_all_trials(self._study, deepcopy=False)]
        ends = ("failed", "diverged", "died")
        return [entry for entry in found if entry.state not in ends or entry.number > forgiven]

    def claim(self, unit: str, begun_at: str = "") -> int | None:
        """Begin an attempt at a unit, unless a living process is at it, or it has failed since one looked.

        Args:
            unit: The unit.
            begun_at: How far its run is, see `deaths`.

        Returns:
            What `beat` and `end` take; None where another was first.
        """
        attrs = {"unit": unit, "begun_at": begun_at, "claim": secrets.token_hex(8), **holder()}
        claimed: int = self._storage.create_new_trial(
            self._study, create_trial(state=TrialState.RUNNING, user_attrs=attrs)
        )
        number = self._storage.get_trial(claimed).number
        self._drop_twins(claimed, attrs["claim"])
        earlier = [entry for entry in self.attempts() if entry.unit == unit and entry.number < number]
        if any(entry.state in ("running", "failed", "diverged") for entry in earlier):
            self.end(claimed, "dropped")
            return None
        return claimed

    def deaths(self, unit: str, begun_at: str) -> list[Attempt]:
        """The attempts at a unit that began where its run still is, and died there."""
        return [
            entry for entry in self.attempts() if (entry.unit, entry.begun_at, entry.state) == (unit, begun_at, "died")
        ]

    def is_held(self, unit: str, but: int) -> bool:
        """Whether a living process is at a unit in an attempt other than a claimed one."""
        number = self._storage.get_trial(but).number
        return any(
            entry.unit == unit and entry.state == "running" and entry.number != number for entry in self.attempts()
        )

    def beat(self, claimed: int, number: int) -> bool:
        """Show that this process lives; False once the attempt has been ended."""
        try:
            self._storage.set_trial_user_attr(claimed, "beat", number)
        except UpdateFinishedTrialError:
            return False
        return True

    def end(self, claimed: int, state: str, error: str = "", seconds: float | None = None) -> None:
        """End an attempt, with how it went."""
        kinds = {"done": TrialState.COMPLETE, "dropped": TrialState.PRUNED}
        try:
            self._storage.set_trial_user_attr(claimed, "end", {"state": state, "error": error, "seconds": seconds})
            values = [seconds or 0.0] if state == "done" else None
            self._storage.set_trial_state_values(claimed, kinds.get(state, TrialState.FAIL), values)
        except UpdateFinishedTrialError:  # somebody took this process for dead
            return

    def forgive(self) -> None:
        """Let what has failed so far count for nothing."""
        attempts = self._storage.get_all_trials(self._study, deepcopy=False)
        self._storage.set_study_user_attr(self._study, _FORGIVEN, len(attempts) - 1)

    def _read(self, trial: FrozenTrial) -> Attempt:
        known = trial.user_attrs
        end = known.get("end")
        if end is None:
            end = {"state": "running" if self._watch.lives(trial.number, known) else "died"}
        error, seconds, begun_at = end.get("error", ""), end.get("seconds"), known.get("begun_at", "")
        return Attempt(trial.number, known["unit"], end["state"], error, seconds, begun_at, in_words(known))

    def _drop_twins(self, claimed: int, claim: str) -> None:
        """Drop what a claim has written before its last: a server that went away has not said that it had it."""
        for trial in self._storage.get_all_trials(self._study, deepcopy=False, states=[TrialState.RUNNING]):
            twin = self._storage.get_trial_id_from_study_id_trial_number(self._study, trial.number)
            if trial.user_attrs.get("claim") == claim and twin != claimed:
                self.end(twin, "dropped")

    def _find(self, name: str) -> int:
        try:
            return self._storage.get_study_id_from_name(name)
        except KeyError:
            try:
                return self._storage.create_new_study([StudyDirection.MINIMIZE], name)
            except DuplicatedStudyError:  # another process was as quick
                return self._storage.get_study_id_from_name(name)

    def _check_version(self, name: str) -> None:
        known = self._storage.get_study_user_attrs(self._study).get(_VERSION)
        if known is None and self._storage.get_all_trials(self._study, deepcopy=False):
            hint = "name the suite otherwise, or take another database"
            raise ConfigError(f"study {name}", expected="a queue of randlora", got="another study of Optuna", hint=hint)
        if known is None:
            self._storage.set_study_user_attr(self._study, _VERSION, __version__)
        elif known != __version__:
            expected = f"randlora {known}, which began it"
            hint = "install that version, or choose another --output"
            raise ConfigError(f"study {name}", expected=expected, got=f"randlora {__version__}", hint=hint)


def _journal(folder: Path) -> JournalStorage:
    path = str(folder / JOURNAL)
    try:
        return JournalStorage(JournalFileBackend(path, _Lock(path)))
    except OSError as error:
        raise OutputError(path, expected="a file that can be written", got=str(error.strerror)) from error
