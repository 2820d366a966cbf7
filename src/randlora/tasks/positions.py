"""How long a text a model can read."""

from typing import Any

from torch import nn

_KEYS = ("max_position_embeddings", "max_encoder_position_embeddings", "n_positions", "max_seq_len")


def longest_text(model: nn.Module, tokenizer: Any) -> int:
    """Most tokens that a model has positions for.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer, which is asked about models whose positions have no end (T5's, ALiBi).

    Returns:
        Tokens, special ones included.
    """
    config: Any = model.config
    config = config.get_text_config()
    limits = [getattr(config, key, None) for key in _KEYS]
    limit = next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)
    if limit is None:
        return int(tokenizer.model_max_length)
    return limit - _first_position(model)


def _first_position(model: nn.Module) -> int:
    """Where a model counts from: RoBERTa and its kin give the padding's number to no token and begin after it."""
    for name, layer in model.named_modules():
        if name.endswith(".position_embeddings") and getattr(layer, "padding_idx", None) is not None:
            return int(layer.padding_idx) + 1
    return 0
