"""The process's peak where there is no /proc, as on macOS and Windows."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import torch

from randlora.training.run import memory

CPU = torch.device("cpu")


def test_without_proc_the_peak_is_that_of_the_process(monkeypatch):
    known = memory.peak_bytes(CPU)
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    assert memory.peak_bytes(CPU) >= 0.9 * known  # of the process's life, and so no less but for what is counted
    windows = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=123))
    monkeypatch.setattr(psutil, "Process", lambda: windows)
    assert memory.peak_bytes(CPU) == 123


def test_training_does_without_resource_which_windows_lacks(without_randlora):
    source = "import sys\nsys.modules['resource'] = None\n"
    source += "import randlora.training, randlora.studies.worker, randlora.cli.commands.runs\nprint('imported')"
    assert without_randlora(source) == "imported"
