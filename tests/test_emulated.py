"""The tests of `tests/emulated`, in a process of their own.

Once PyTorch knows the emulated device it offers it as the machine's accelerator to all that ask, other tests too.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_on_a_device_that_is_not_the_cpu(tmp_path):
    words = ["-q", "-p", "no:cacheprovider", "--disable-warnings", "--basetemp", str(tmp_path / "runs")]
    folder = Path(__file__).parent / "emulated"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", *words, *map(str, (folder / "methods.py", folder / "runs.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-5000:]
