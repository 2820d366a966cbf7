"""OpenAI-compatible servers that exist, and the words that start each on a model's folder."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass

from randlora.errors import ConfigError

# The program `transformers` looks for a newer version of itself before it starts; its commands do not. The thread ends
# the server with the process that holds the other end of its standard input, however that one ends.
_TRANSFORMERS = """
import os, signal, threading
def end_with_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_parent, daemon=True).start()
from transformers.cli.transformers import app
app(prog_name="transformers")
"""


@dataclass(frozen=True)
class Engine:
    """A server.

    Attributes:
        name: Its name, as in --engine.
        packages: What has to be installed for it.
        hint: How to install that.
        words: The words that start it on a model of this name in the working folder, at a host and a port.
        trust: The word that lets the model's own code run.
    """

    name: str
    packages: tuple[str, ...]
    hint: str
    words: Callable[[str, str, int], list[str]]
    trust: str = "--trust-remote-code"

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]


def _transformers(model: str, host: str, port: int) -> list[str]:
    return [sys.executable, "-c", _TRANSFORMERS, "serve", model, "--host", host, "--port", str(port)]


def _vllm(model: str, host: str, port: int) -> list[str]:
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", f"./{model}"]
    return [*server, "--served-model-name", model, "--host", host, "--port", str(port)]


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("vllm", ("vllm",), "pip install vllm", _vllm),
        Engine(
            "transformers", ("fastapi", "uvicorn", "openai", "typer"), "pip install 'randlora[serve]'", _transformers
        ),
    )
}
"""The engines, the faster first."""


def choose_engine(name: str) -> Engine:
    """The engine of a name, or for "auto" the first that is installed.

    Raises:
        ConfigError: It is not installed.
    """
    if name == "auto":
        name = next((engine.name for engine in ENGINES.values() if not engine.missing), "transformers")
    engine = ENGINES[name]
    if engine.missing:
        got = ", ".join(engine.missing)
        raise ConfigError(
            f"packages of the server {name}", expected="to be installed", got=f"no {got}", hint=engine.hint
        )
    return engine
