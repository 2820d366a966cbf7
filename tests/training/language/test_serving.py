"""The real server: transformers' own, asked with OpenAI's client, and gone when it is told to end."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from randlora.cli import main
from randlora.training.language import Decoding, generate, load_speaker
from randlora.training.language.engines import ENGINES
from randlora.training.language.prompts import token_ids

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(ENGINES["transformers"].missing),
        reason=f"transformers' server needs {', '.join(ENGINES['transformers'].missing)}",
    ),
]


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(source, port, folder):
    """`randlora serve` in a process of its own, with what it printed once it listens."""
    (folder / "tmp").mkdir()
    paths = [str(Path(main.__code__.co_filename).parents[2]), os.environ.get("PYTHONPATH", "")]
    variables = {
        **os.environ,
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, "-m", "randlora", "serve", str(source), "--port", str(port), "--engine", "transformers"]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables)
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert "curl" in lines[1], (folder / "errors").read_text()
        yield process, lines
    finally:
        process.kill()
        process.wait()


def test_a_run_is_served_and_leaves_nothing(spoken_run, port, tmp_path):
    openai = pytest.importorskip("openai")
    speaker = load_speaker(str(spoken_run))
    with serving(spoken_run, port, tmp_path) as (process, lines):
        assert lines[0].startswith(f"http://127.0.0.1:{port}/v1 serves the model run;")
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=60, max_retries=0)
        assert [model.id for model in client.models.list()] == ["run"]
        for prompt in ("abc", "dda"):
            ask = {
                "model": "run",
                "messages": [{"role": "user", "content": prompt}],
                "temperature": 0,
                "max_tokens": 12,
            }
            answer = client.chat.completions.create(**ask)
            expected = generate(speaker, [token_ids(speaker, prompt, "here")], Decoding(12))[0]
            assert answer.choices[0].message.content == expected
            pieces = [
                chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**ask, stream=True)
            ]
            assert "".join(pieces) == expected
        processes = psutil.Process(process.pid).children(recursive=True)
        assert processes
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "errors").read_text()
    assert not any(one.is_running() for one in processes)
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("randlora")]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_model_folder_is_served_as_it_is_and_not_after_its_process_is_killed(llama, port, tmp_path):
    openai = pytest.importorskip("openai")
    before = sorted(path.name for path in Path(llama).iterdir())
    with serving(llama, port, tmp_path) as (process, _):
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=60, max_retries=0)
        name = Path(llama).name
        answer = client.completions.create(model=name, prompt="abc", temperature=0, max_tokens=5)
        speaker = load_speaker(str(llama))
        expected = generate(speaker, [token_ids(speaker, "abc", "here", raw=True)], Decoding(5))[0]
        assert answer.choices[0].text == expected
        processes = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(processes, timeout=20)
        assert not alive
    assert sorted(path.name for path in Path(llama).iterdir()) == before
