"""A run's folder: config.yaml, record.json, adapter/ and, while it trains, checkpoints/."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from randlora.errors import OutputError
from randlora.files import write_atomically
from randlora.training.config import TrainConfig
from randlora.training.progress import FILE_NAME as PROGRESS
from randlora.training.record import FILE_NAME as RECORD
from randlora.training.record import Record

CONFIG = "config.yaml"


class RunFolder:
    """The folder of one run, and what is known from it about the run.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"
        self._unfinished_adapter = self.path / ".adapter.tmp"

    def finished(self, config: TrainConfig) -> Record | None:
        """The record if this very run is finished here, None if it is new or unfinished.

        Args:
            config: The resolved config of the run.

        Raises:
            OutputError: The folder holds another run, or files that are no run.
        """
        if not self.path.exists() or not any(self.path.iterdir()):
            return None
        expected, hint = "a new or empty folder, or one of this run", "choose another folder"
        if not (self.path / CONFIG).is_file():
            raise OutputError("output", expected=expected, got=f"{self.path}, which holds other files", hint=hint)
        wanted, found = _flat(as_dict(config)), _flat(self._read_config())
        for key, value in wanted.items():
            if key != "output" and value != found.get(key):
                got = f"{self.path}, a run with {key} {found.get(key)!r} instead of {value!r}"
                raise OutputError("output", expected=expected, got=got, hint=hint)
        if not (self.path / RECORD).is_file():
            return None
        shutil.rmtree(self.checkpoints, ignore_errors=True)  # killed between its last two acts
        return Record.load(self.path)

    def checkpoint(self) -> Path | None:
        """The newest complete checkpoint, or None."""
        complete = [path.parent for path in self.checkpoints.glob(f"checkpoint-*/{PROGRESS}")]
        return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    @contextmanager
    def attempt(self, config: TrainConfig) -> Iterator[None]:
        """Write the config: from here on the folder holds a run. A failure leaves something to resume, or nothing.

        Args:
            config: The resolved config of the run.

        Raises:
            OutputError: The folder cannot be written, now or inside the `with` block.
        """
        try:
            with _writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                content = yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)
                write_atomically(self.path / CONFIG, content)
                yield
        except Exception:
            if self.checkpoint() is None:
                self._discard()
            raise

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
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise OutputError(str(path), expected="a run's config", got=str(error)) from error
        return content if isinstance(content, dict) else {}

    def _discard(self) -> None:
        for part in (self.checkpoints, self._unfinished_adapter, self.adapter):
            shutil.rmtree(part, ignore_errors=True)
        for path in (self.path / CONFIG, *self.path.glob(".*.tmp")):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # never made
            self.path.rmdir()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn a full disk, a lost right or the like into an OutputError that names the folder."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        # `torch.save` tells of a full disk by a RuntimeError from its archive writer.
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        raise OutputError(
            str(path),
            expected="a folder that can be written",
            got=getattr(error, "strerror", None) or str(error),
            hint="make room or choose another output",
        ) from error


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The config as `config.yaml` holds it."""
    return dataclasses.asdict(config)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested dictionaries."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
