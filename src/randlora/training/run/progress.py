"""What a run has been through so far: it survives an interruption inside the checkpoint."""

import json
import statistics
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path

from randlora.errors import OutputError
from randlora.files import write_atomically
from randlora.training.run.checkpoints import FILE_NAME, FILES, list_files


@dataclass
class Progress:
    """Measurements that add up over interruptions.

    Attributes:
        started: When the run began, in ISO format.
        before: Scores before training, by split and name; None before they are measured.
        train_seconds: Time spent in training up to the last checkpoint.
        step_seconds: Times of the latest steps.
        peak_memory_bytes: Most memory in use in training.
        processes: Number of processes that train together, among which the examples are divided.
        gains: Of a search for what layers gain, theirs so far.
        sharding: How the model is shared out among them, in words; empty where each has the whole.
    """

    started: str
    before: dict[str, float] | None = None
    train_seconds: float = 0.0
    step_seconds: list[float] = field(default_factory=list)
    peak_memory_bytes: int = 0
    processes: int = 1
    gains: dict[str, float] = field(default_factory=dict)
    sharding: str = ""

    @property
    def step_seconds_median(self) -> float:
        """Median time of an optimizer step in seconds."""
        return statistics.median(self.step_seconds) if self.step_seconds else 0.0

    def save(self, checkpoint: Path) -> None:
        """Write it into a checkpoint, which is complete from then on."""
        write_atomically(checkpoint / FILE_NAME, json.dumps({**asdict(self), FILES: list_files(checkpoint)}))

    @classmethod
    def load(cls, checkpoint: Path) -> "Progress":
        """Read what `save` wrote, of a checkpoint that is whole."""
        content = json.loads((checkpoint / FILE_NAME).read_text(encoding="utf-8"))
        return cls(**{entry.name: content[entry.name] for entry in fields(cls) if entry.name in content})


def resumed(checkpoint: Path | None, processes: int, sharding: str = "") -> Progress:
    """What a training has been through so far.

    Args:
        checkpoint: The one that it resumes from; None for one that begins.
        processes: Number of processes that train together.
        sharding: See `Progress`.

    Raises:
        OutputError: Another number of processes wrote the checkpoint, which divided the examples otherwise, or such as
            shared the model out otherwise.
    """
    if checkpoint is None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return Progress(now, processes=processes, sharding=sharding)
    progress = Progress.load(checkpoint)
    if progress.processes != processes:
        expected = f"as many processes as wrote {checkpoint.name}, {progress.processes}"
        raise OutputError("processes", expected=expected, got=str(processes), hint="or choose another output")
    if progress.sharding != sharding:
        before, now = (words or "a whole model in every process" for words in (progress.sharding, sharding))
        expected = f"that of {checkpoint.name}, {before}"
        raise OutputError("the launch", expected=expected, got=now, hint="or choose another output")
    return progress
