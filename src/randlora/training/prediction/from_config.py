"""The same prediction before a model is there: from its config, tokenizer and preprocessing, without a weight."""

from dataclasses import replace
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from randlora.errors import ConfigError, RandLoraError
from randlora.tasks import TASKS
from randlora.tasks.sources import locate, without_weights
from randlora.training.config.sections import TrainConfig
from randlora.training.methods import build, load_model
from randlora.training.prediction.step import Prediction, predict


def predict_from_config(config: TrainConfig) -> Prediction:
    """Predict the peak memory of a run without its weights and its data; nothing is downloaded.

    Examples are as long as the config allows; of classes there are as many as `Task.without_data` makes up.

    Args:
        config: The run's config, resolved.

    Returns:
        With `assumed` saying why, where there is no peak: the model's files are not here, or its method or its
        quantization needs the weights.
    """
    try:
        here = replace(config, model=_on_this_machine(config.model))
        task = TASKS[config.task].without_data(config.data)
        with without_weights():
            load_model(task, here)
            model = build(task, config.method)
        return predict(here, task, model)
    except RandLoraError as error:
        return Prediction(None, None, str(error))
    except Exception as error:  # noqa: BLE001 - code of models and methods that asks a weight for its numbers
        lines = str(error).strip().splitlines() or [""]
        return Prediction(None, None, f"needs the weights: {type(error).__name__}: {lines[0]}")


def _on_this_machine(model: str) -> str:
    """The folder of a model, which is that of the hub's cache for one on the hub.

    Raises:
        ConfigError: It is in none.
    """
    location = locate(model)
    if location != model or Path(location).exists():
        return location
    try:
        return snapshot_download(model, local_files_only=True)
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise ConfigError("model", expected="one whose files are on this machine", got=model) from error
