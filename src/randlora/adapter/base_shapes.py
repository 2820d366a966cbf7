"""The shapes of the layers that an adapter is on, in its config: of a layer's sides its tensors show the smaller only.

A shape is written for all blocks at once, {"model.layers.*.mlp.up_proj": "11008x4096"}, so that the config of a large
model stays a few lines.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import groupby

from torch import nn

from randlora.adapter.weights import full_shape
from randlora.adapter_config import AdapterConfig
from randlora.errors import CheckpointError

_BLOCK = re.compile(r"([^\d.][^.]*(?:\.[^\d.][^.]*)*)\.\d+\.")
"""The beginning of a layer's name up to its first number."""


def settle_shapes(config: AdapterConfig, layers: Mapping[str, nn.Module]) -> None:
    """Write the shapes of an adapter's layers into its config, or compare them with those written there.

    Args:
        config: The adapter's own configuration; its `base_shapes` are filled in.
        layers: Name of every layer that it adapts -> its base layer.

    Raises:
        CheckpointError: A layer has another shape than the one that the adapter was trained on.
    """
    found = {name: "x".join(map(str, full_shape(layer))) for name, layer in layers.items()}
    check_shapes(config.base_shapes or {}, found)
    config.base_shapes = _by_block(found)


def settle_blocks(config: AdapterConfig, layers: Iterable[str], model: nn.Module) -> None:
    """Write the lengths of the block lists into an adapter's config, or compare them with those written there.

    An adapter whose targets are full names would fit the first blocks of a deeper model.

    Args:
        config: The adapter's own configuration; its `base_blocks` are filled in.
        layers: Names of the layers that it adapts.
        model: The base model.

    Raises:
        CheckpointError: A list has another length than the one that the adapter was trained on.
    """
    lists = {match[1] for name in layers if (match := _BLOCK.match(name))}
    found = {name: model.get_submodule(name) for name in sorted(lists)}
    lengths = {name: len(module) for name, module in found.items() if isinstance(module, nn.ModuleList)}
    for name, length in lengths.items():
        expected = (config.base_blocks or {}).get(name, length)
        if expected != length:
            raise CheckpointError(
                f"block list {name!r}",
                expected=f"{expected} blocks, on which the adapter was trained",
                got=str(length),
                hint="this is another base model",
            )
    config.base_blocks = lengths


def check_shapes(recorded: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raise unless layers have the shapes recorded for them; one that nothing is recorded for passes.

    Args:
        recorded: `base_shapes` of a config.
        found: Layers, or `base_shapes` of another config.

    Raises:
        CheckpointError: One has not.
    """
    for name, shape in found.items():
        expected = recorded.get(name, recorded.get(_any_block(name), shape))
        if expected != shape:
            raise CheckpointError(
                f"layer {name!r}",
                expected=f"shape {expected}, which the adapter was trained on",
                got=shape,
                hint="this is another base model, or the same with more or fewer tokens, labels or channels",
            )


def _by_block(shapes: Mapping[str, str]) -> dict[str, str]:
    """One entry for what has the same name in every block, where it has the same shape in all of them."""
    entries: dict[str, str] = {}
    for pattern, names in groupby(sorted(shapes, key=_any_block), key=_any_block):
        group = {name: shapes[name] for name in names}
        entries |= {pattern: next(iter(group.values()))} if len(set(group.values())) == 1 else group
    return entries


def _any_block(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))
