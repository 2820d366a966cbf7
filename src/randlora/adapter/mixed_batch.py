"""Batches in which every sample names its own adapter: PEFT's `adapter_names` argument of `forward` and `generate`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from randlora.adapter.base_layer import BASE_MODEL, AdapterLayer
from randlora.adapter.parameters import AdaptedModule
from randlora.errors import UpdateError


@contextmanager
def adapters_by_sample(model: nn.Module, adapter_names: Sequence[str], num_beams: int = 1) -> Iterator[None]:
    """Inside, every adapted layer, and every module that was trained whole, treats each sample by its own adapter.

    Args:
        model: The model with the adapters.
        adapter_names: One per sample; "__base__" is the base model.
        num_beams: Of beam search, which repeats every sample behind the encoder.

    Raises:
        UpdateError: The model is in training mode, or has a merged adapter; or there is no adapter of a name.
    """
    _check(model, adapter_names)
    get_encoder: Any = getattr(model, "get_encoder", lambda: None)
    encoder = get_encoder()
    # transformers returns the model itself where there is no encoder
    in_encoder = set() if encoder in (None, model) else set(encoder.modules())
    repeated = [name for name in adapter_names for _ in range(num_beams)]
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, (AdapterLayer, AuxiliaryTrainingWrapper)):
                names = adapter_names if module in in_encoder else repeated
                handle = module.register_forward_pre_hook(partial(_pass_names, names=names), with_kwargs=True)
                hooks.callback(handle.remove)
            if isinstance(module, AdapterLayer):
                module.by_sample = True
                hooks.callback(setattr, module, "by_sample", False)
        yield


def _pass_names(_module: nn.Module, args: Any, kwargs: dict[str, Any], names: Sequence[str]) -> tuple[Any, Any]:
    return args, {**kwargs, "adapter_names": names}


def _check(model: nn.Module, adapter_names: Sequence[str]) -> None:
    if not isinstance(adapter_names, (list, tuple)):
        raise UpdateError("adapter_names", expected="a list with a name per sample", got=repr(adapter_names))
    if model.training:
        raise UpdateError("adapter_names", expected="a model in evaluation mode", hint="call model.eval()")
    layers = [module for module in model.modules() if isinstance(module, AdapterLayer)]
    for name, module in model.named_modules():
        if isinstance(module, AdaptedModule):
            raise UpdateError(
                "adapter_names",
                expected="adapters on layers only",
                got=f"one on parameters of {name}",
                hint="split the batch and call set_adapter for each part",
            )
    merged = sorted({name for layer in layers for name in layer.merged_adapters})
    if merged:
        raise UpdateError("adapter_names", expected="no merged adapter", got=f"{merged}", hint="call unmerge_adapter()")
    known = {name for layer in layers for name in layer.adapter_dropout} | {BASE_MODEL}
    unknown = sorted(set(adapter_names) - known)
    if unknown:
        raise UpdateError("adapter_names", expected=f"names of {sorted(known)}", got=f"{unknown}")
