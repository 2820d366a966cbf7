"""Pre-trained models: where they lie, and errors that name the config key when they cannot be had."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from randlora.errors import ConfigError
from randlora.tasks.gguf import GGUF, converted
from randlora.tasks.new_models import OnMeta, new_model
from randlora.tasks.paths import FILE, FOLDER, NOTHING, UNREADABLE, kind_of, local

Loaded = TypeVar("Loaded")
PACKAGE = "package:"
_weightless: ContextVar[bool] = ContextVar("_weightless", default=False)


@dataclass(frozen=True)
class BaseModel:
    """A pre-trained model as a config names it.

    Attributes:
        name: Hub id, folder, GGUF file, or `package:NAME/PATH` of such in an installed package.
        trust_remote_code: Whether Python code that comes with it may run.
        dtype: Of its weights, torch's name; None means as the task loads it.
        quantization: "nf4", "int8" or None.
        start: An adapter folder that training starts from, or None.
    """

    name: str
    trust_remote_code: bool = False
    dtype: str | None = None
    quantization: str | None = None
    start: str | None = None


def locate(model: str) -> str:
    """Turn `package:NAME/PATH` into what lies at PATH in the installed package NAME, and `~` into the home folder.

    Args:
        model: Hub id, local folder, GGUF file or `package:NAME/PATH`.

    Raises:
        ConfigError: The package is not installed, nothing lies there, or it holds a pipe, a socket or a device.
    """
    if not model.startswith(PACKAGE):
        return _folder_or_hub_id(model)
    name, _, path = model.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("model", expected="an installed package", got=f"'{name}'", hint=f"pip install {name}")
    found = Path(spec.submodule_search_locations[0]) / path
    if not found.is_dir() and not _is_gguf(found):
        raise ConfigError("model", expected=f"a folder or a GGUF file in the package '{name}'", got=f"'{path}'")
    return str(found)


def _is_gguf(path: Path) -> bool:
    return path.suffix == GGUF and kind_of(path) == FILE


def _folder_or_hub_id(model: str) -> str:
    path = local(model)
    kind = kind_of(path)
    if kind == NOTHING and not model.startswith((".", "/", "~")):
        return model
    if _is_gguf(path):
        return str(path)
    if kind != FOLDER:
        got = f"{model}, which does not exist" if kind == NOTHING else f"{model}: {kind}"
        raise ConfigError("model", expected="a model folder", got=got)
    try:
        strange = [f"{entry.name}, {kind_of(entry)}" for entry in path.iterdir() if kind_of(entry) in UNREADABLE]
    except OSError as error:
        raise ConfigError("model", expected="a folder that can be read", got=f"{model}: {error.strerror}") from error
    if strange:  # to open it would be to wait for ever
        raise ConfigError("model", expected=f"files in {model}", got=strange[0])
    return str(path) if model.startswith("~") else model


@contextmanager
def without_weights() -> Iterator[None]:
    """Make models anew from their configs, on the device "meta", where `load` is asked for weights."""
    token = _weightless.set(True)
    try:
        with OnMeta():
            yield
    finally:
        _weightless.reset(token)


def load(loader: Callable[..., Loaded], model: str, *, what: str, **options: Any) -> Loaded:
    """Call `loader(model, **options)`, transformers' `from_pretrained` of some class.

    Args:
        loader: The function to call.
        model: As in the config.
        what: What is loaded, for the message: "weights", "tokenizer", ...
        options: Passed through.

    Raises:
        ConfigError: It is not there, not of the right kind, or would run foreign code without leave.
    """
    try:
        location = locate(model)
        location = converted(location) if location.endswith(GGUF) else location
        if what == "weights" and _weightless.get():
            new: Loaded = new_model(loader, location, **options)
            return new
        return loader(location, **options)
    except ConfigError:
        raise
    # transformers raises OSError, ValueError, KeyError, ImportError and safetensors' own class here.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ConfigError(
            "model",
            expected=f"a model whose {what} can be loaded (hub id, folder or {PACKAGE}NAME/PATH)",
            got=f"'{model}': {type(error).__name__}: {lines[0]}",
        ) from error
