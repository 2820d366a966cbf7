"""Whether a model keeps examples apart that are packed into one row, which its code decides and no setting says."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

ROUNDING = 0.5
"""Share of the difference that leaking makes which rounding may make; a model that leaks makes all of it."""

_LENGTHS = (3, 1, 4)


def keeps_apart(model: nn.Module) -> bool:
    """Try whether packed examples have the logits that each has alone.

    TRL packs with `packing_strategy="bfd"` by laying examples one behind the other, with positions that begin at 0 for
    each and without an attention mask. Most of transformers' models then make a block-diagonal mask, with every
    attention they have; those whose positions are no input (OPT, BLOOM, Mamba, Falcon) let every example see the ones
    before them, and nothing says so. This asks the model, in eval mode, with eight tokens, and compares with what it
    makes of them where they do see each other.

    Args:
        model: A causal language model on its device, with an adapter or without.

    Returns:
        True if it does; False also where it takes no `position_ids`. True on the device "meta", where there are no
        numbers to compare.
    """
    device = next(parameter.device for parameter in model.parameters())
    if device.type == "meta":
        return True
    generator = torch.Generator().manual_seed(0)
    examples = [torch.randint(0, _vocabulary(model), (1, length), generator=generator) for length in _LENGTHS]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            alone = torch.cat([_logits(model, example, device) for example in examples], dim=1)
            row, positions = torch.cat(examples, dim=1), _positions(_LENGTHS)
            packed = (_logits(model, row, device, position_ids=positions) - alone).norm()
            # With a mask of ones transformers makes no blocks, except for flash attention: there, positions that go on.
            flash = "flash" in str(getattr(getattr(model, "config", None), "_attn_implementation", ""))
            one_text = {"position_ids": positions, "attention_mask": torch.ones_like(row)}
            leaking = (_logits(model, row, device, **({} if flash else one_text)) - alone).norm()
    except TypeError:  # no such argument
        return False
    finally:
        for module in training:
            module.training = True
    return bool(packed <= ROUNDING * leaking)


def _logits(model: nn.Module, ids: Tensor, device: torch.device, **others: Tensor) -> Tensor:
    extra = {name: value.to(device) for name, value in others.items()}
    # With a cache transformers takes the row for one text and makes no blocks.
    logits: Tensor = model(input_ids=ids.to(device), use_cache=False, **extra).logits
    return logits.float()


def _positions(lengths: Sequence[int]) -> Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None]


def _vocabulary(model: nn.Module) -> int:
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(getattr(text, "vocab_size", 100))
