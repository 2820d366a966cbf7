"""A trained language model behind an OpenAI-compatible server: merged, served, and cleared away."""

import json
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from peft import PeftModel

from randlora.errors import ConfigError
from randlora.files import expanded, writing
from randlora.messages import printable
from randlora.tasks.gguf import GGUF, converted
from randlora.tasks.paths import local
from randlora.tasks.sources import locate
from randlora.training.language.engines import Engine
from randlora.training.language.server import Server, progress_line
from randlora.training.language.speaker import is_adapted, load_speaker

_REVISION = "0" * 40
"""A commit's name in the hub's cache."""


def serve(
    source: str,
    engine: Engine,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    model: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Serve a language model until the process is interrupted (SIGINT) or told to end (SIGTERM).

    An adapter is merged first, into a temporary folder. The server is a child process; with it that folder goes.

    Args:
        source: A run's folder, an adapter folder, or a model: folder, GGUF file or `package:NAME/PATH`.
        engine: The server.
        host: The address to listen on.
        port: The port to listen on.
        model: Where the base model of a run or an adapter is, if not where training had it.
        trust_remote_code: Whether Python code that comes with the model may run, whatever the folder says.

    Raises:
        CheckpointError: The run is not finished, or its adapter is damaged or of another model.
        ConfigError: It is no language model, or cannot be loaded.
        DeviceError: The server ended by itself.
        OutputError: There is no room for the merged model.
    """
    name = served_name(source)
    with _ended_by_signals(), tempfile.TemporaryDirectory(prefix="randlora-serve-") as scratch:
        work = Path(scratch)
        with writing(work, hint="make room, or set TMPDIR to another folder"):
            _put_model(source, work / name, model, trust_remote_code=trust_remote_code)
        words = [*engine.words(name, host, port), *([engine.trust] if trust_remote_code else [])]
        environment = {"HF_HUB_CACHE": str(_listing(work, name)), "HF_HUB_OFFLINE": "1"}
        with Server(words, work, environment, show=sys.stderr.write) as server:
            where = f"[{host}]" if ":" in host else host
            shown = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(where, where)  # noqa: S104 - compared, not bound
            with progress_line(f"the server of {engine.name} is starting") as waiting:
                server.wait_until_healthy(f"http://{shown}:{port}/health", waiting)
            print(_greeting(name, f"http://{shown}:{port}"), flush=True)  # noqa: T201 - the command's output
            server.watch()


def served_name(source: str) -> str:
    """The name that requests ask for: the last part of the source's, in letters that mean nothing to a server."""
    stem = expanded(source.rstrip("/")).resolve().name.removesuffix(GGUF)
    return re.sub(r"[^A-Za-z0-9._-]+|-{2,}|\.{2,}", "-", stem).strip("-.") or "model"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the block quietly at SIGINT, SIGTERM and SIGHUP: so a server is told to end, or its terminal is closed."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)  # noqa: T201
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _put_model(source: str, folder: Path, model: str | None, *, trust_remote_code: bool) -> None:
    """Put the model where the server finds it: a link to a folder that is whole, or the merged weights."""
    if not is_adapted(source) and model is None:
        location = locate(source)
        location = converted(location) if location.endswith(GGUF) else location
        if not local(location).is_dir():
            hint = f"'{sys.executable} -m transformers.cli.transformers serve {source}' takes names on the hub"
            raise ConfigError("source", expected="a folder or a GGUF file", got=source, hint=hint)
        folder.symlink_to(local(location).resolve(), target_is_directory=True)
        return
    speaker = load_speaker(source, model, trust_remote_code=trust_remote_code, dequantize=True)
    if isinstance(speaker.model, PeftModel):
        hint = "the server knows no adapters; randlora chat and generate do"
        raise ConfigError(str(source), expected="an adapter that can be merged exactly", got="none", hint=hint)
    speaker.model.save_pretrained(folder)
    speaker.tokenizer.save_pretrained(folder)
    print(f"the adapter of {printable(source)} is merged", file=sys.stderr)  # noqa: T201


def _listing(work: Path, name: str) -> Path:
    """A hub's cache with nothing but this model's config, which transformers' server lists at /v1/models."""
    cache = work / "hub"
    repository = cache / f"models--{name}"
    snapshot = repository / "snapshots" / _REVISION
    snapshot.mkdir(parents=True)
    shutil.copy(work / name / "config.json", snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(_REVISION, encoding="ascii")
    return cache


def _greeting(name: str, url: str) -> str:
    body: dict[str, Any] = {"model": name, "messages": [{"role": "user", "content": "Hello!"}], "temperature": 0}
    return (
        f"{url}/v1 serves the model {name}; Ctrl-C ends it\n"
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )
