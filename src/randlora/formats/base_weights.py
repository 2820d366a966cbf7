"""Adapters that take what they begin with out of the base weights, so that the model without them is another one."""

import peft

_INITIALIZATIONS = ("corda", "loftq", "lora_ga", "olora", "pissa")
"""What LoRA's `init_lora_weights` begins with where it changes W₀."""


def changed_by(config: peft.PeftConfig) -> str | None:
    """What of an adapter's config changes the base weights when the adapter is put on; None where nothing does.

    Args:
        config: The adapter's.

    Example:
        >>> changed_by(peft.LoraConfig(init_lora_weights="pissa"))
        'pissa'
    """
    start = getattr(config, "init_lora_weights", None)
    if isinstance(start, str) and start.startswith(_INITIALIZATIONS):
        return start
    return "kasa" if getattr(config, "kasa_config", None) else None
