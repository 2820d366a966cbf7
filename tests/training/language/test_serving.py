"""The real server: transformers' own, asked with OpenAI's client, and gone when it is told to end."""

import os
import signal
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from processes import TOOL, Child
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
    words = ["serve", source, "--port", port, "--engine", "transformers"]
    child = Child(TOOL, words, folder=folder, TMPDIR=str(folder / "tmp"), OMP_NUM_THREADS="1")
    try:
        while len(child.output.splitlines()) < 2 and child.process.is_alive():
            time.sleep(0.1)
        assert "curl" in child.output, child.errors
        yield child, child.output.splitlines()
    finally:
        child.process.kill()
        child.wait()


def test_a_run_is_served_and_leaves_nothing(spoken_run, port, tmp_path):
    openai = pytest.importorskip("openai")
    speaker = load_speaker(str(spoken_run))
    with serving(spoken_run, port, tmp_path) as (child, lines):
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
        processes = psutil.Process(child.process.pid).children(recursive=True)
        assert processes
        assert list((tmp_path / "tmp").glob("randlora*"))
        os.kill(child.process.pid, signal.SIGTERM)
        assert child.wait() == 0, child.errors
    assert not any(one.is_running() for one in processes)
    assert not list((tmp_path / "tmp").glob("randlora*"))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_model_folder_is_served_as_it_is_and_not_after_its_process_is_killed(llama, port, tmp_path):
    openai = pytest.importorskip("openai")
    before = sorted(path.name for path in Path(llama).iterdir())
    with serving(llama, port, tmp_path) as (child, _):
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=60, max_retries=0)
        name = Path(llama).name
        answer = client.completions.create(model=name, prompt="abc", temperature=0, max_tokens=5)
        speaker = load_speaker(str(llama))
        expected = generate(speaker, [token_ids(speaker, "abc", "here", raw=True)], Decoding(5))[0]
        assert answer.choices[0].text == expected
        processes = psutil.Process(child.process.pid).children(recursive=True)
        child.process.kill()
        _, alive = psutil.wait_procs(processes, timeout=20)
        assert not alive
    assert sorted(path.name for path in Path(llama).iterdir()) == before
