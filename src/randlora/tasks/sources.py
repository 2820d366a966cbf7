"""Pre-trained models: where they lie, and errors that name the config key when they cannot be had."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from randlora.errors import ConfigError
from randlora.tasks.paths import FOLDER, NOTHING, UNREADABLE, kind_of, local

Loaded = TypeVar("Loaded")
PACKAGE = "package:"


def locate(model: str) -> str:
    """Turn `package:NAME/PATH` into the folder PATH of the installed package NAME, and `~` into the home folder.

    Args:
        model: Hub id, local folder or `package:NAME/PATH`.

    Raises:
        ConfigError: The package is not installed, the folder does not exist, or it holds a pipe, a socket or a device.
    """
    if not model.startswith(PACKAGE):
        return _folder_or_hub_id(model)
    name, _, path = model.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("model", expected="an installed package", got=f"'{name}'", hint=f"pip install {name}")
    folder = Path(spec.submodule_search_locations[0]) / path
    if not folder.is_dir():
        raise ConfigError("model", expected=f"a folder in the package '{name}'", got=f"'{path}'")
    return str(folder)


def _folder_or_hub_id(model: str) -> str:
    path = local(model)
    kind = kind_of(path)
    if kind == NOTHING and not model.startswith((".", "/", "~")):
        return model
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
        return loader(locate(model), **options)
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
