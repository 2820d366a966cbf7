"""The tests of `tests/emulated`, in a process of their own.

Once PyTorch knows the emulated device it offers it as the machine's accelerator to all that ask, other tests too.
"""

from pathlib import Path

import pytest

from processes import Child

pytestmark = pytest.mark.slow


PYTEST = "import sys\nimport pytest\nsys.exit(pytest.main(sys.argv[1:]))\n"


def test_on_a_device_that_is_not_the_cpu(tmp_path):
    words = ["-q", "-p", "no:cacheprovider", "--disable-warnings", "--basetemp", tmp_path / "runs"]
    folder = Path(__file__).parent / "emulated"
    child = Child(PYTEST, [*words, folder / "methods.py", folder / "runs.py"], folder=tmp_path)
    assert child.wait() == 0, child.output[-5000:]
