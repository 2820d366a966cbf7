"""Folding once for many passes: decoding, evaluation, gradient accumulation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from randlora.methods.randlora.layer import RandLoraLayer

Model = TypeVar("Model", bound=nn.Module)


@contextmanager
def fold_once(model: Model) -> Iterator[Model]:
    """While this lasts, every layer keeps W₀ + ΔW from its first pass on; then all is as before, to the bit.

    The base weights are not touched. A kept weight is used until λ or γ changes (an optimizer step, a loaded
    checkpoint), so that gradient accumulation folds once per step and decoding once at all. It costs one more copy of
    the adapted weights, in the compute dtype. Layers that do not fold (dropout while training, several active adapters,
    hooks), and compiled models, work as without it. Changes through `.data`, and of tensors that were made in
    inference mode, are not seen, as autograd does not see them.

    Args:
        model: A model with RandLoRA adapters.

    Yields:
        The model.

    Example:
        >>> import peft, torch
        >>> from randlora import RandLoraConfig, fold_once
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 8))
        >>> model = peft.get_peft_model(net, RandLoraConfig(r=2, target_modules=["0"]))
        >>> with fold_once(model), torch.no_grad():
        ...     model(torch.ones(1, 8)).shape
        torch.Size([1, 8])
    """
    adapted = [module for module in model.modules() if isinstance(module, RandLoraLayer)]
    layers = [layer for layer in adapted if layer.folded_weights is None]
    for layer in layers:
        layer.folded_weights = {}

    def forget(*_: Any) -> None:
        for layer in layers:
            layer.folded_weights = {}

    # Fused optimizers change numbers without raising their version, by which other changes are seen.
    after_steps = register_optimizer_step_post_hook(forget)
    try:
        yield model
    finally:
        after_steps.remove()
        for layer in layers:
            layer.folded_weights = None
