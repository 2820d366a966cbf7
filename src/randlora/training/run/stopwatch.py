"""Times of a run's steps, and of its training, taken without making a GPU wait."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from randlora.training.run.progress import Progress

KEPT_STEPS = 1000
"""The median is taken over this many of the latest step times, so that checkpoints stay small."""

_Mark = Any
"""A point in time: seconds, or, of a GPU, an event that it passes when what was asked of it before is done."""


class Stopwatch(TrainerCallback):
    """Measures steps and the whole training into a `Progress`.

    A GPU is given its steps ahead of time. To ask for the time after each would have it idle until the next one is
    asked for, so that its steps are read where it is waited for anyway: when the loss is logged, and at a checkpoint.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._mark: float | None = None
        self._begun: _Mark = 0.0
        self._steps: list[tuple[_Mark, _Mark]] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.resume()

    def on_step_begin(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """The batch is loaded; a step begins."""
        self._begun = _mark(args.device)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Note the step's time, and have its loss logged before a checkpoint, so that none is lost on resuming."""
        self._steps.append((self._begun, _mark(args.device)))
        if control.should_save or state.global_step >= state.max_steps:
            control.should_log = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """The same for checkpoints at the end of an epoch."""
        del args, state
        control.should_log = control.should_log or control.should_save
        return control

    def on_log(self, *_: Any, **__: Any) -> None:
        """The loss was read, for which a GPU was waited for."""
        self._read()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop the clock."""
        self.pause()

    def pause(self) -> bool:
        """Stop the clock; whether it was running."""
        running = self._mark is not None
        self.lap()
        self._mark = None
        return running

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep what is done in the block out of the training's time."""
        running = self.pause()
        yield
        if running:
            self.resume()

    def resume(self) -> None:
        """Let the clock run again."""
        self._mark = time.perf_counter()

    def _read(self) -> None:
        """Take down the steps since the last time."""
        seconds = [_seconds(begin, end) for begin, end in self._steps]
        self._steps = []
        self.progress.step_seconds = [*self.progress.step_seconds, *seconds][-KEPT_STEPS:]

    def lap(self) -> None:
        """Add the time since the last call to the training time."""
        self._read()
        if self._mark is not None:
            now = time.perf_counter()
            self.progress.train_seconds += now - self._mark
            self._mark = now


def _mark(device: torch.device) -> _Mark:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(begin: _Mark, end: _Mark) -> float:
    """Time between two marks, the second of which is waited for."""
    if isinstance(begin, float):
        return float(end - begin)
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000
