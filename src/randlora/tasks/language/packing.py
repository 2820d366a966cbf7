"""Whether a model keeps examples apart that are packed into one row, which its code decides and no setting says."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-3
"""Largest difference that rounding explains, relative to the largest logit; what leaks differs by a tenth and more."""

_LENGTHS = (3, 1, 4)


def keeps_apart(model: nn.Module) -> bool:
    """Try whether packed examples have the logits that each has alone.

    TRL packs with `packing_strategy="bfd"` by laying examples one behind the other, with positions that begin at 0 for
    each and without an attention mask. Most of transformers' models then make a block-diagonal mask, with every
    attention they have; those whose positions are no input (OPT, BLOOM, Mamba, Falcon) let every example see the ones
    before it, and nothing says so. This asks the model, in eval mode, with eight tokens.

    Args:
        model: A causal language model on its device, with an adapter or without.

    Returns:
        True if it does; False also where it takes no `position_ids`.
    """
    device = next(parameter.device for parameter in model.parameters())
    generator = torch.Generator().manual_seed(0)
    examples = [torch.randint(0, _vocabulary(model), (1, length), generator=generator) for length in _LENGTHS]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = torch.cat([_logits(model, example, device) for example in examples], dim=1)
            together = _logits(model, torch.cat(examples, dim=1), device, _positions(_LENGTHS))
    except TypeError:  # no such argument
        return False
    finally:
        model.train(training)
    rounding = TOLERANCE if alone.dtype == torch.float32 else 0.05
    return bool((alone - together).abs().max() <= rounding * alone.abs().max().clamp(min=1e-6))


def _logits(model: nn.Module, ids: Tensor, device: torch.device, positions: Tensor | None = None) -> Tensor:
    extra = {} if positions is None else {"position_ids": positions.to(device)}
    # With a cache transformers takes the row for one text and makes no blocks.
    logits: Tensor = model(input_ids=ids.to(device), use_cache=False, **extra).logits
    return logits


def _positions(lengths: Sequence[int]) -> Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None]


def _vocabulary(model: nn.Module) -> int:
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(getattr(text, "vocab_size", 100))
