"""A run's folder: config.yaml, record.json, adapter/ and, while it trains, checkpoints/."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from randlora.errors import ConfigError, OutputError
from randlora.files import expanded, write_atomically, writing
from randlora.locks import LOCK, locked
from randlora.messages import note
from randlora.training.config import strict_yaml
from randlora.training.config.schema import config_of
from randlora.training.config.sections import TrainConfig, resolve
from randlora.training.run.checkpoints import FILE_NAME as LAST_FILE
from randlora.training.run.checkpoints import damage
from randlora.training.run.record import FILE_NAME as RECORD
from randlora.training.run.record import Record

CONFIG = "config.yaml"
RANKS = "ranks.json"
"""Beside the checkpoints: what a search for ranks found, until the record says it."""


class RunFolder:
    """The folder of one run, and what is known from it about the run.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = expanded(path)
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"
        self.search = self.checkpoints / "search"
        self._unfinished_adapter = self.path / ".adapter.tmp"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder; the lock of one that has died counts for nothing.

        Raises:
            OutputError: Another run holds the lock, or the folder cannot be written.
        """
        got, hint = f"{self.path}, in use", "choose another folder"
        busy = OutputError("output", expected="a folder that no other run is using", got=got, hint=hint)
        with locked(self.path, busy, self._refuse_links):
            yield

    def finished(self, config: TrainConfig) -> Record | None:
        """The record if this very run is finished here, None if it is new or unfinished.

        Args:
            config: The resolved config of the run; without fingerprint, data and model are not compared.

        Raises:
            OutputError: The folder holds another run, or files that are no run.
        """
        expected, hint = "a new or empty folder, or one of this run", "choose another folder"
        if not (self.path / CONFIG).is_file():
            if self.path.exists() and any(not _is_litter(entry) for entry in self.path.iterdir()):
                raise OutputError("output", expected=expected, got=f"{self.path}, which holds other files", hint=hint)
            return None
        wanted, found = flat(as_dict(config)), _completed(self._read_config())
        for key, value in wanted.items():
            if key.startswith("fingerprint."):
                if value != found.get(key, value):
                    got = f"{self.path}, a run on another {key.partition('.')[2]}: its content has changed since"
                    raise OutputError("output", expected=expected, got=got, hint=hint)
            elif key != "output" and value != found.get(key):
                got = f"{self.path}, a run with {key} {found.get(key)!r} instead of {value!r}"
                raise OutputError("output", expected=expected, got=got, hint=hint)
        if not (self.path / RECORD).is_file():
            return None
        shutil.rmtree(self.checkpoints, ignore_errors=True)  # killed between its last two acts
        return Record.load(self.path)

    def checkpoint(self, folder: Path | None = None) -> Path | None:
        """The newest whole checkpoint, or None; of damaged ones that are passed over the user is told.

        Args:
            folder: Where they are: the training's by default, or `search`.
        """
        folder = folder or self.checkpoints
        found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
        for path in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
            what = damage(path)
            if what is None:
                return path
            note(f"{path} is passed over: {what}")
        return None

    def furthest(self) -> str:
        """Where, among the checkpoints, the one with the most steps is, not read; nothing where there is none.

        Those of the training are further than those of a search for ranks.
        """
        for folder in (self.checkpoints, self.search):
            numbers = [path.parent.name.rpartition("-")[2] for path in folder.glob(f"checkpoint-*/{LAST_FILE}")]
            steps = [int(number) for number in numbers if number.isdecimal()]
            if steps:
                return str((folder / f"checkpoint-{max(steps)}").relative_to(self.checkpoints))
        return ""

    @contextmanager
    def attempt(self, config: TrainConfig) -> Iterator[None]:
        """Write the config: from here on the folder holds a run. A failure leaves something to resume, or nothing.

        Args:
            config: The resolved config of the run.

        Raises:
            OutputError: The folder cannot be written, now or inside the `with` block.
        """
        try:
            with writing(self.path, hint="make room or choose another output"):
                self.path.mkdir(parents=True, exist_ok=True)
                content = yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)
                write_atomically(self.path / CONFIG, content)
                yield
        except Exception:
            if self.checkpoint() is None and self.checkpoint(self.search) is None:
                self._discard()
            raise

    def save_ranks(self, found: dict[str, Any]) -> None:
        """Write what a search for ranks found: from here on the training with these ranks is resumed."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomically(self.checkpoints / RANKS, json.dumps(found))

    def found_ranks(self) -> dict[str, Any] | None:
        """What `save_ranks` wrote, or None."""
        path = self.checkpoints / RANKS
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            note(f"{path} is passed over: {error}")
            return None
        return found if isinstance(found, dict) else None

    def save_adapter(self, write: Callable[[Path], object]) -> None:
        """Let `write` fill a temporary folder, then put it in place whole."""
        shutil.rmtree(self._unfinished_adapter, ignore_errors=True)
        write(self._unfinished_adapter)
        shutil.rmtree(self.adapter, ignore_errors=True)
        self._unfinished_adapter.replace(self.adapter)

    def finish(self, record: Record) -> None:
        """Write the record, which marks the run as finished, and drop the checkpoints."""
        record.save(self.path)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _read_config(self) -> dict[str, Any]:
        path = self.path / CONFIG
        try:
            content = strict_yaml.load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise OutputError(str(path), expected="a run's config", got=str(error)) from error
        return content if isinstance(content, dict) else {}

    def _refuse_links(self) -> None:
        """Links lead out of the folder; whoever gave it away may have put them there to be written through."""
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                if (Path(folder) / name).is_symlink():
                    got = f"the link {(Path(folder) / name).relative_to(self.path)} in {self.path}"
                    raise OutputError("output", expected="a run's own files", got=got, hint="remove the link")

    def _discard(self) -> None:
        for part in (self.checkpoints, self._unfinished_adapter, self.adapter):
            shutil.rmtree(part, ignore_errors=True)
        for path in (self.path / CONFIG, *self.path.glob(".*.tmp")):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # never made
            self.path.rmdir()


def _is_litter(path: Path) -> bool:
    """Whether a file is what a run leaves behind that was killed before it had a config."""
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".tmp"))


def _completed(content: dict[str, Any]) -> dict[str, Any]:
    """The dotted keys of a run's config, with the defaults of those that came into being after it was written."""
    with suppress(ConfigError):  # it has keys of another version: it stands as it is
        return flat(as_dict(resolve(config_of(content)))) | flat(content)
    return flat(content)


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The config as `config.yaml` holds it."""
    return dataclasses.asdict(config)


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested dictionaries."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
