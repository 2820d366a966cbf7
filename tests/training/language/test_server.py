"""A child process that serves: waited for, ended, and its last words told. A small server of Python's stands in."""

import socket
import sys
import time

import psutil
import pytest

from randlora.errors import ConfigError, DeviceError
from randlora.training.language.engines import ENGINES, choose_engine
from randlora.training.language.server import Server, check_address
from randlora.training.language.serving import served_name

SERVER = """
import http.server, subprocess, sys, signal
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv else signal.SIG_DFL)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def started():
    """The processes that have been started since the test began; other tests have left helpers of multiprocessing."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [child for child in psutil.Process().children(recursive=True) if child not in before]


def gone(processes):
    """Whether all processes have ended, at the latest in a moment."""
    _, alive = psutil.wait_procs(processes, timeout=3)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("manner", ["polite", "deaf"])
def test_a_server_and_its_workers_are_ended(tmp_path, port, manner, monkeypatch, started):
    monkeypatch.setattr("randlora.training.language.server.PATIENCE", 0.5)
    shown, waited = [], []
    with Server([sys.executable, "-c", SERVER, str(port), manner], tmp_path, {}, shown.append) as server:
        server.wait_until_healthy(f"http://127.0.0.1:{port}/health", waited.append)
        processes = started()
        assert len(processes) == 2
        with pytest.raises(ConfigError, match="--port: expected a free port"):
            check_address("127.0.0.1", port)
    assert gone(processes)
    check_address("127.0.0.1", port)


@pytest.mark.parametrize(
    "source",
    ["print('no such model\\nweights: 100%|###| 2/2'); raise SystemExit(3)", "raise ValueError('no such model')"],
)
def test_the_last_words_of_a_server_that_ends_are_told(tmp_path, source):
    server = Server([sys.executable, "-c", source], tmp_path, {}, print)
    with server, pytest.raises(DeviceError, match=r"ended with code [13]: .*no such model") as caught:
        server.wait_until_healthy("http://127.0.0.1:9/health")
    assert "\n" not in str(caught.value)


def test_a_server_that_dies_while_it_serves_is_told(tmp_path, port, started):
    with Server([sys.executable, "-c", SERVER, str(port)], tmp_path, {}, lambda _: None) as server:
        server.wait_until_healthy(f"http://127.0.0.1:{port}/health")
        processes = started()
        psutil.Process(server._process.pid).kill()
        with pytest.raises(DeviceError, match=r"expected one that goes on running, got .* code -9") as caught:
            server.watch()
    assert "\n" not in str(caught.value)
    assert gone(processes)


def test_an_error_while_it_starts_ends_it(tmp_path, started):
    def interrupt(_):
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117
        with Server([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, {}, print) as server:
            processes = started()
            server.wait_until_healthy("http://127.0.0.1:9/health", interrupt)
    assert gone(processes)
    assert time.monotonic() - began < 30


def test_wrong_addresses():
    for port in (0, 65536, -1):
        with pytest.raises(ConfigError, match="--port: expected from 1 to 65535"):
            check_address("127.0.0.1", port)
    with pytest.raises(ConfigError, match="--host"):
        check_address("no such host", 8000)


def test_the_engine_that_is_installed(monkeypatch):
    installed = set()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    for name in ("auto", "transformers"):
        with pytest.raises(ConfigError, match=r"no fastapi.*pip install 'randlora\[serve\]'"):
            choose_engine(name)
    with pytest.raises(ConfigError, match="pip install vllm"):
        choose_engine("vllm")
    installed |= {"fastapi", "uvicorn", "openai", "typer"}
    assert choose_engine("auto").name == "transformers"
    installed.add("vllm")
    assert choose_engine("auto").name == "vllm"
    words = ENGINES["vllm"].words("run", "127.0.0.1", 8000)
    assert words[words.index("--model") + 1] == "./run"


@pytest.mark.parametrize(
    ("source", "name"),
    [("runs/a b@1", "a-b-1"), ("/models/x.gguf", "x"), ("--", "model"), ("a--b", "a-b"), ("runs/mine/", "mine")],
)
def test_the_name_means_nothing_to_a_server(source, name):
    assert served_name(source) == name
