"""Whether the tokens of a model see those behind them, as an encoder's do."""

from typing import Any

import torch

_TEXTS = [[5, 6, 7, 8], [5, 6, 7, 9]]
"""Token ids that differ in the last one."""


@torch.no_grad()
def looks_ahead(model: Any) -> bool:
    """Try whether what a model says of a text's beginning depends on its end.

    transformers' BERT, RoBERTa and their kin are encoders or language models by `is_decoder` in their config, and both
    load with a head that predicts tokens. Others with that key are language models whatever it says (GPT-NeoX), so that
    the model is asked; those without it are language models and are not.

    Args:
        model: A model of transformers in evaluation mode, on its device. On "meta" there is nothing to try.

    Returns:
        True if it does.
    """
    if getattr(model.config.get_text_config(), "is_decoder", True) or model.device.type == "meta":
        return False
    first, second = (
        model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, :-1].float()
        for ids in _TEXTS
    )
    return bool((first - second).norm() > 1e-4 * first.norm())
