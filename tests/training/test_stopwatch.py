"""Times of steps: on a GPU they are read afterwards, from events that it passes, and no step waits for the clock."""

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl

from randlora.training.run.progress import Progress
from randlora.training.run.stopwatch import KEPT_STEPS, Stopwatch

CONTROL, STATE = TrainerControl(), SimpleNamespace(global_step=1, max_steps=10**6)


class Event:
    """An event of a GPU that takes two seconds for every step, and how often one was waited for."""

    passed = waited = 0

    def __init__(self, *, enable_timing):
        assert enable_timing

    def record(self, stream):
        assert stream == "the device's"
        self.at, Event.passed = Event.passed, Event.passed + 1

    def synchronize(self):
        Event.waited += 1

    def elapsed_time(self, end):
        return 2000.0 * (end.at - self.at)


@pytest.fixture
def steps(monkeypatch):
    """Take so many steps on a GPU."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "the device's")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("a step waits"))
    monkeypatch.setattr(Event, "waited", 0)
    arguments = SimpleNamespace(device=torch.device("cuda"))

    def take(watch, count):
        for _ in range(count):
            watch.on_step_begin(arguments)
            watch.on_step_end(arguments, STATE, CONTROL)

    return take


def test_a_gpu_is_waited_for_when_the_loss_is_logged_and_not_before(steps):
    watch = Stopwatch(Progress(""))
    watch.on_train_begin()
    steps(watch, 3)
    assert (Event.waited, watch.progress.step_seconds) == (0, [])
    watch.on_log()
    assert watch.progress.step_seconds == [2.0] * 3
    steps(watch, 2)
    watch.lap()  # of a checkpoint, which keeps them
    assert watch.progress.step_seconds == [2.0] * 5
    steps(watch, KEPT_STEPS)
    watch.on_train_end()
    assert watch.progress.step_seconds == [2.0] * KEPT_STEPS
