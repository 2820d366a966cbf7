"""An adapter of the towers' weights, trained together with the prompts and kept in their file."""

import json
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from torch import nn


def in_json(config: PeftConfig) -> dict[str, Any]:
    """A PEFT config as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=sorted))
    return found


def put_beside(model: nn.Module, adapter_name: str, given: dict[str, Any], *, inference_mode: bool) -> dict[str, Any]:
    """Put an adapter into a model.

    Args:
        model: The model; its other parameters are frozen.
        adapter_name: The adapter's name, that of the prompts.
        given: Its config, from `in_json`.
        inference_mode: Whether it is frozen too.

    Returns:
        Its config with what the tuner filled in.
    """
    config = PeftConfig.from_peft_type(**given)
    config.inference_mode = inference_mode
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, config, adapter_name)
    return in_json(tuner.peft_config[adapter_name])
