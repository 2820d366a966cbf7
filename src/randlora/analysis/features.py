"""Outputs of the attention and MLP blocks of a model, a vector for each example."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from randlora.analysis.hsic import SMALLEST, gram
from randlora.errors import LayerError

_KINDS = {
    "attention": re.compile(r"Attention|Attn"),
    "mlp": re.compile(r"MLP|Mlp|FeedForward|FFN|MoE|Moe|LayerFF"),
}
_BERT_MLP = "output"
"""Where a layer has no class for its MLP, as BERT's, the child that ends it."""
_WRAPPERS = ("base_model.model.", "base_layer.")


def find_blocks(model: nn.Module) -> dict[str, tuple[str, nn.Module]]:
    """The attention and MLP blocks of every tower of a model, adapted or not.

    Returns:
        Name in the model without adapters -> kind, "attention" or "mlp", and module; in the model's order.

    Raises:
        LayerError: There are none.
    """
    found: dict[str, tuple[str, nn.Module]] = {}
    inside: tuple[str, ...] = ()
    for path, layers in model.named_modules():
        if not isinstance(layers, nn.ModuleList) or f"{path}.".startswith(inside or ("\0",)):
            continue  # a list inside a block: experts
        blocks = {
            f"{path}.{number}.{name}": block
            for number, layer in layers.named_children()
            for name, block in _blocks_of(layer).items()
        }
        if blocks:
            inside += (f"{path}.",)
            found |= {_plain(name): block for name, block in blocks.items()}
    if not found:
        raise LayerError(type(model).__name__, expected="a model of layers with attention and MLP blocks")
    return found


def _blocks_of(layer: nn.Module) -> dict[str, tuple[str, nn.Module]]:
    """The outermost blocks of a layer, by their names in it."""
    found: dict[str, tuple[str, nn.Module]] = {}
    for name, module in layer.named_modules():
        if not name or any(name.startswith(f"{outer}.") for outer in found):
            continue
        kind = next((kind for kind, word in _KINDS.items() if word.search(type(module).__name__)), None)
        if kind is not None:
            found[name] = (kind, module)
    last = getattr(layer, _BERT_MLP, None)
    if found and isinstance(last, nn.Module) and all(kind != "mlp" for kind, _ in found.values()):
        found[_BERT_MLP] = ("mlp", last)
    return found


def _plain(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


class GramCollector:
    """Gram matrices of every block's features, batch by batch: memory grows with the batch, not with the width.

    An example's features are the mean of a block's output over its tokens, those of padding left out, or over the
    patches of an image. The captions of CLIP's text tower, the same for all images, are examples of their own.

    Args:
        model: The model, evaluating.
        size: Examples in a batch.

    Attributes:
        kinds: Name of a block -> its kind.
        grams: Name of a block -> a matrix for each batch.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        self._blocks = find_blocks(model)
        self._size = size
        self._masks = [mask for name, mask in model.named_buffers() if name.endswith("attention_mask")]
        self.kinds = {name: kind for name, (kind, _) in self._blocks.items()}
        self.grams: dict[str, list[Tensor]] = {name: [] for name in self._blocks}

    @contextmanager
    def listening(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """Take what the blocks put out while the model runs on a batch."""
        mask = batch.get("attention_mask")
        masks = [*self._masks] if mask is None else [mask, *self._masks]
        with ExitStack() as hooks:
            for name, (_, module) in self._blocks.items():

                def take(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                    for part in example_features(output, masks).split(self._size):
                        if len(part) >= SMALLEST:
                            self.grams[name].append(gram(part).cpu())

                hooks.enter_context(_removed(module.register_forward_hook(take)))
            yield


@contextmanager
def _removed(hook: Any) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def example_features(output: Any, masks: list[Tensor]) -> Tensor:
    """A block's output as (examples, width): the mean over tokens or places.

    Args:
        output: (examples, tokens, width), (examples, channels, height, width) or (examples, width), or a tuple that
            begins with one.
        masks: (examples, tokens) each, 0 at padding; the one that fits is used.
    """
    states: Tensor = output if isinstance(output, Tensor) else output[0]
    states = states.float()
    if states.dim() == 4:
        return states.mean(dim=(2, 3))
    if states.dim() == 2:
        return states
    mask = next((mask for mask in masks if mask.shape == states.shape[:2]), None)
    if mask is None:
        return states.mean(dim=1)
    weights = mask.to(states.device, states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
