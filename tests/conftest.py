"""What every test starts from: one thread, a fixed seed, the same hypothesis examples in every run, no network."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"
from every_method import METHODS, REPRESENTATIVES

pytest_plugins = ["tiny"]  # models and data for the floors above the adapter
torch.set_num_threads(1)  # for tiny matrices a second thread only waits

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=30,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")


def pytest_collection_modifyitems(items):
    """Starting Python with PyTorch and transformers takes some five seconds; asking every method the same, minutes."""
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        of_a_variant = any(isinstance(v, str) and v in METHODS and v not in REPRESENTATIVES for v in values)
        if {"in_new_process", "without_randlora"} & set(item.fixturenames) or of_a_variant:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="module")
def _frozen():
    """What is there between two files stays: collections of garbage, of which every run does some, need not walk it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def in_new_process(tmp_path):
    """Run Python source in a process of its own, in `tmp_path`; its output, or its error text where it must fail."""

    def run(source: str, *, fails: bool = False) -> str:
        script = Path(tmp_path) / "script.py"
        script.write_text(source, encoding="utf-8")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout.strip()

    return run


@pytest.fixture(scope="session")
def _fork_server():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(Path(__file__).parent / "fork_server.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as server:
        yield server
        server.stdin.close()


@pytest.fixture
def without_randlora(tmp_path, _fork_server):
    """As `in_new_process`, where PyTorch and transformers may have been imported, but not PEFT and randlora."""

    def run(source: str, *, fails: bool = False) -> str:
        files = [Path(tmp_path) / name for name in ("printed", "errors")]
        print(json.dumps([source, str(tmp_path), [str(path) for path in files]]), file=_fork_server.stdin, flush=True)
        code = int(_fork_server.stdout.readline())
        printed, errors = (path.read_text(encoding="utf-8") for path in files)
        assert (code != 0) == fails, errors
        return errors if fails else printed.strip()

    return run
