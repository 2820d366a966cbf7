"""Peak memory: the allocator's on a GPU, the process's on a CPU."""

import ctypes
import gc
import importlib
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def hand_back() -> None:
    """Hand what no longer has an owner to the system, which else glibc and PyTorch would keep for this process.

    A Trainer and its model hold each other, so that a run that is over has to be collected first.
    """
    gc.collect()
    torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def reset_peak(device: torch.device) -> None:
    """Start to measure anew, without what earlier runs have left. Where the system cannot, the process's peak stays."""
    hand_back()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR_REFS.write_text("5")  # 5 resets the peak resident set size, VmHWM
    except OSError:
        return


def peak_bytes(device: torch.device) -> int:
    """Most memory in use since `reset_peak`, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return _peak_without_linux()


def _peak_without_linux() -> int:
    on_windows = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if on_windows is not None:  # there is no `resource` there
        return int(on_windows)
    resource: Any = importlib.import_module("resource")
    largest = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return largest if sys.platform == "darwin" else largest * 1024  # Linux counts KiB, macOS bytes


def current_bytes(device: torch.device) -> int:
    """Memory in use now, in bytes."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
