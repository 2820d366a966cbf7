"""Keys of a run's config as a suite may write them: dotted or nested, in one form."""

from collections.abc import Mapping
from typing import Any

from randlora.errors import ConfigError
from randlora.training.config.synonyms import dotted, ours

SHARED = ("method.target_modules", "method.exclude_modules")
"""Keys of the method section that a suite gives to every method with an adapter."""

_SET = ("seed", "output", "start_from", "fingerprint", "optimization.learning_rate", "method")
"""Keys that a study sets itself, or that would make one run depend on another."""


def flat(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Dotted key -> value of a part of a suite.

    Args:
        section: Keys of a run's config, dotted or nested.
        where: What it is called, for messages.

    Raises:
        ConfigError: A key is there twice, or is one that a study sets, or a section is none.
    """
    found: dict[str, Any] = {}
    for given, value in dotted(section):
        if given in ("data", "optimization"):
            raise ConfigError(f"{where}.{given}", expected="a section with keys of its own", got=repr(value))
        key = ours(given)
        if key in found:
            raise ConfigError(f"{where}.{key}", expected="one value", got="two")
        if key not in SHARED and (key in _SET or key.partition(".")[0] in ("method", "fingerprint")):
            hint = "methods, seeds and learning_rates stand beside it"
            raise ConfigError(f"{where}.{key}", expected="nothing: a study sets it", got=repr(value), hint=hint)
        found[key] = value
    return found
