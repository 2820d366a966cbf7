"""The tests of `tests/emulated`, each file in a process of its own.

Once PyTorch knows the emulated device it offers it as the machine's accelerator to all that ask, other tests too.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["methods", "runs"])
def test_on_a_device_that_is_not_the_cpu(name, tmp_path):
    words = ["-q", "-p", "no:cacheprovider", "--disable-warnings", "--basetemp", str(tmp_path / "runs")]
    file = Path(__file__).parent / "emulated" / f"{name}.py"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", *words, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-5000:]
