"""Time, memory and correctness of a training step."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def steady_heap() -> None:
    """Begin again with a heap that keeps its memory, if this process has none such.

    By default glibc maps the pages of every large tensor anew; the time goes to whichever method allocates most, and
    hides what is to be measured. Every method gets the same heap.
    """
    if os.environ.get("MALLOC_MMAP_THRESHOLD_") != _HEAP["MALLOC_MMAP_THRESHOLD_"]:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | _HEAP)  # noqa: S606 - this same program


def interleaved(calls: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each call: median, 10th and 90th percentile, all calls in turn so that drift hits all alike.

    Args:
        calls: Name -> what to time.
        repetitions: How often each, after one unmeasured round.
    """
    return {
        name: summary([sum(passes) for passes in measured])
        for name, measured in in_turn({name: (call,) for name, call in calls.items()}, repetitions).items()
    }


def in_turn(
    calls: dict[str, Sequence[Callable[..., Any]]],
    repetitions: int,
    before: Callable[[], Any] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[list[float]]]:
    """Seconds of each pass of each call, all calls in turn.

    Args:
        calls: Name -> its passes; each but the first is given the result of the one before.
        repetitions: How often each, after one unmeasured round.
        before: Called before each call, outside of the time.
        clock: `time.process_time` does not count the time in which other programs had the processor. It is of use with
            one thread: threads that wait for each other do so at work.
    """
    seconds: dict[str, list[list[float]]] = {name: [] for name in calls}
    for repetition in range(repetitions + 1):
        for name, passes in calls.items():
            before()
            result: tuple = ()
            measured = []
            for each in passes:
                _wait()
                start = clock()
                result = (each(*result),)
                _wait()
                measured.append(clock() - start)
            if repetition:
                seconds[name].append(measured)
    return seconds


def _wait() -> None:
    """Until a GPU has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=10, method="inclusive")
    return {"median": 1e3 * statistics.median(seconds), "p10": 1e3 * cuts[0], "p90": 1e3 * cuts[-1]}


def peak_bytes(call: Callable[[], Any]) -> int:
    """Most bytes that a call had allocated at one time, beyond what was there before, by the allocator's own count."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    held = peak = 0
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def saved_bytes(call: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes of the tensors kept for the backward pass, parameters and buffers aside, each storage once."""
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(found.values())


def relative_error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """‖found - exact‖ / ‖exact‖ over all tensors together."""
    pairs = list(zip(found, exact, strict=True))
    difference = sum((f.double() - e.double()).square().sum().item() for f, e in pairs)
    return (difference / sum(e.double().square().sum().item() for _, e in pairs)) ** 0.5
