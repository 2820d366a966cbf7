"""What several commands need: packages of an extra, and words that mean the same everywhere."""

import argparse
import importlib.util
from types import ModuleType

from randlora.errors import ConfigError

_EXTRAS = {
    "train": ("datasets", "PIL", "yaml", "pydantic", "docstring_parser", "tqdm", "psutil", "filelock", "trl"),
    "demo": ("matplotlib", "sklearn"),
    "report": ("jinja2",),
    "quantized": ("bitsandbytes", "torchao"),
    "serve": ("fastapi", "uvicorn", "openai", "typer", "rich"),
    "harness": ("lm_eval",),
    "suites": ("sacrebleu", "nltk", "pycocoevalcap"),
    "study": ("optuna", "scipy", "submitit"),
}
"""Modules by the extra of this package that brings them."""


def missing(module: str) -> ConfigError:
    """The error of a package that is not installed, with what installs it.

    Args:
        module: Its name in Python.
    """
    extra = next((extra for extra, modules in _EXTRAS.items() if module in modules), None)
    hint = f"pip install {module}" if extra is None else f"pip install 'randlora[{extra}]'"
    return ConfigError(f"package {module!r}", expected="to be installed", hint=hint)


def require(*modules: str) -> None:
    """Check that packages are installed, without importing them.

    Args:
        modules: Their names in Python.

    Raises:
        ConfigError: One is not.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise missing(module)


def training() -> ModuleType:
    """The training floor, with its data library kept from drawing bars for every file it opens."""
    require("pydantic", "datasets")
    import datasets

    from randlora import training as floor

    datasets.disable_progress_bars()
    return floor


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add --trust-remote-code."""
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
