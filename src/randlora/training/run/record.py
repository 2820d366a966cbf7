"""The record of a run: what was trained, how well, how fast, how big, on what."""

import json
import math
import os
import platform
import subprocess
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import torch

from randlora.errors import CheckpointError
from randlora.files import write_atomically
from randlora.training.config.schema import check_value

FILE_NAME = "record.json"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "randlora")


@dataclass(frozen=True)
class Record:
    """One run's results.

    Attributes:
        method: Name of the method.
        task: Name of the task family.
        model: The model, as in the config.
        goal: Name of the metric that the task is judged by.
        unit: What stands after its value.
        metrics: `SPLIT_METRIC` after training and `SPLIT_METRIC_before` before it, for the splits "validation" and
            "test"; train_loss is the mean over all steps. The test split is not scored in runs that are still to be
            chosen among. None stands for a number that is not finite.
        history: What was logged step by step: loss, learning rate, validation scores.
        trainable_parameters: Trained numbers of the method, without the head.
        head_parameters: Trained numbers of the head.
        adapter_bytes: Size of the adapter folder.
        train_seconds: Wall time of training, over all interruptions, without the evaluations.
        step_seconds_median: Median time of an optimizer step, without the loading of its data.
        peak_memory_bytes: Most memory in use in training: the allocator's on a GPU, the process's on a CPU.
        seed: Seed of the run.
        facts: What the task must know of the training data to evaluate, such as the names of the classes.
        versions: Of Python and the packages that matter.
        commit: Commit of the source checkout, None for an installed package.
        hardware: device (name), cores, precision.
        started: When, in ISO format with time zone.
        rank_search: What `autolora` or `auto_randlora` found before the training: the r by layer; of `autolora` whether
            with look_ahead, and the threshold, of `auto_randlora` what each layer gained; steps and seconds of the
            search. Empty for other methods.
    """

    method: str
    task: str
    model: str
    goal: str
    unit: str
    metrics: dict[str, float | None]
    trainable_parameters: int
    head_parameters: int
    adapter_bytes: int
    train_seconds: float
    step_seconds_median: float
    peak_memory_bytes: int
    seed: int
    facts: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    hardware: dict[str, Any]
    started: str
    history: list[dict[str, float]]
    rank_search: dict[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """The split that was scored before and after training: "validation" if there is one, else "test"."""
        return "validation" if f"validation_{self.goal}" in self.metrics else "test"

    @property
    def before(self) -> float | None:
        """The goal before training."""
        return self.metrics.get(f"{self.split}_{self.goal}_before")

    @property
    def after(self) -> float | None:
        """The goal after training."""
        return self.metrics.get(f"{self.split}_{self.goal}")

    def row(self) -> dict[str, Any]:
        """The record for a table: its fields, and the goal before and after."""
        return {**asdict(self), "split": self.split, "before": self.before, "after": self.after}

    def save(self, folder: Path) -> None:
        """Write `record.json`, atomically."""
        content = json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(folder / FILE_NAME, content)

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read `record.json`; keys of later versions are ignored.

        Raises:
            CheckpointError: There is none, or it is damaged.
        """
        path = folder / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            wanted = [entry.name for entry in fields(cls) if entry.name in content or entry.default_factory is MISSING]
            values = {name: content[name] for name in wanted}
            for name, value in values.items():
                check_value(name, value, get_type_hints(cls)[name])
            return cls(**values)
        except FileNotFoundError as error:
            hint = "an unfinished run goes on by the command that began it"
            raise CheckpointError(
                str(path), expected="the record of a finished run", got="none there", hint=hint
            ) from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(
                str(path), expected="the record of a finished run", got=f"{type(error).__name__}: {error}"
            ) from error


def finite(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def versions() -> dict[str, str]:
    """Versions of Python and the packages that decide a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def commit() -> str | None:
    """Commit of the git checkout this file is tracked in, or None."""
    here = Path(__file__)
    # A package installed below somebody else's checkout is not tracked there.
    for command in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
        try:
            done = subprocess.run(  # noqa: S603 - fixed arguments
                ["git", "-C", str(here.parent), *command],  # noqa: S607 - whichever git the user has
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError:
            return None
        if done.returncode != 0:
            return None
    return done.stdout.strip()


def hardware(device: torch.device, precision: str) -> dict[str, Any]:
    """Name of the device that computed, processor cores, precision."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"device": name, "cores": cores, "precision": precision}


def _processor() -> str:
    """The processor's name, which Python's `platform` does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
