"""A run that goes on with the adapter of another."""

from dataclasses import replace
from pathlib import Path

from randlora.errors import ConfigError
from randlora.files import expanded
from randlora.formats.checkpoint import WEIGHTS_FILE
from randlora.tasks import TASKS
from randlora.training.config.file import load_config
from randlora.training.config.method_table import AFTER_SEARCH, METHODS
from randlora.training.config.schema import check_values
from randlora.training.config.sections import MethodConfig, TrainConfig, resolve


def adapter_of(config: TrainConfig) -> str | None:
    """The adapter folder that training starts from."""
    return None if config.start_from is None else str(expanded(config.start_from) / "adapter")


def searches_ranks(config: TrainConfig) -> bool:
    """Whether a run begins with a search for ranks: one that goes on with an adapter has its own."""
    return config.method.name in AFTER_SEARCH and config.start_from is None


def check_model(config: TrainConfig, fingerprint: str | None) -> None:
    """Check that the run it starts from was trained on the same model: shapes alone do not tell.

    Args:
        config: The config.
        fingerprint: Of its model's files; None for a model on the hub, which its name tells.

    Raises:
        ConfigError: It was trained on another one.
    """
    folder = adapter_of(config)
    if folder is None:
        return
    other = load_config(Path(folder).parent / "config.yaml")
    known = other.fingerprint.get("model")
    # Between a name on the hub and a folder nothing can be compared.
    on_hub = known is None and fingerprint is None and not other.model.startswith((".", "/", "~"))
    if (known and fingerprint and known != fingerprint) or (on_hub and other.model != config.model):
        got = f"one of {other.model}" + ("" if other.model != config.model else ", which has changed since")
        raise ConfigError("start_from", expected=f"a run on this model, {config.model}", got=got)


def with_start(config: TrainConfig) -> TrainConfig:
    """The config with the method of the run it starts from.

    Raises:
        ConfigError: A value has the wrong type, there is no finished run, its method has no adapter, or the config asks
            for another one.
    """
    check_values(config)
    folder = adapter_of(config)
    if folder is None:
        return config
    run = Path(folder).parent
    parts = (run / "config.yaml", run / "record.json", Path(folder) / WEIGHTS_FILE)
    if not all(part.is_file() for part in parts):
        expected = "the folder of a finished run that trained an adapter"
        raise ConfigError("start_from", expected=expected, got=str(config.start_from))
    other = load_config(run / "config.yaml")
    if other.method.name not in METHODS or TASKS[other.task].trained_head or TASKS[config.task].trained_head:
        expected = "a run of an adapter on a task without a head"
        raise ConfigError("start_from", expected=expected, got=f"{other.method.name} on {other.task}")
    asked = resolve(config).method
    if config.method != MethodConfig() and asked != resolve(other).method:
        expected = f"none, or that of {config.start_from}"
        raise ConfigError("method", expected=expected, got=f"{asked.name}, r {asked.r}")
    return replace(config, method=other.method)
