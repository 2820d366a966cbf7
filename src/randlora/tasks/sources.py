"""Pre-trained models: where they lie, and errors that name the config key when they cannot be had."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from randlora.errors import ConfigError

Loaded = TypeVar("Loaded")
PACKAGE = "package:"


def locate(model: str) -> str:
    """Turn `package:NAME/PATH` into the folder PATH of the installed package NAME; the rest passes through.

    Args:
        model: Hub id, local folder or `package:NAME/PATH`.

    Raises:
        ConfigError: The package is not installed, or the folder does not exist.
    """
    if not model.startswith(PACKAGE):
        if model.startswith((".", "/", "~")) and not Path(model).is_dir():
            raise ConfigError("model", expected="a model folder", got=f"{model}, which does not exist")
        return model
    name, _, path = model.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("model", expected="an installed package", got=f"'{name}'", hint=f"pip install {name}")
    folder = Path(spec.submodule_search_locations[0]) / path
    if not folder.is_dir():
        raise ConfigError("model", expected=f"a folder in the package '{name}'", got=f"'{path}'")
    return str(folder)


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
