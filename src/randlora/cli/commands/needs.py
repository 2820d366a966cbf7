"""What several commands need: packages of an extra, and words that mean the same everywhere."""

import argparse
import importlib.util
from types import ModuleType

from randlora.errors import ConfigError


def require(module: str, extra: str) -> None:
    """Check that a package is installed, without importing it.

    Args:
        module: Its name in Python.
        extra: The extra of this package that brings it.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"package {module!r}", expected="to be installed", hint=f"pip install 'randlora[{extra}]'")


def training() -> ModuleType:
    """The training floor, with its data library kept from drawing bars for every file it opens."""
    require("pydantic", "train")
    require("datasets", "train")
    import datasets

    from randlora import training as floor

    datasets.disable_progress_bars()
    return floor


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add --trust-remote-code."""
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
