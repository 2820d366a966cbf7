"""Embeddings: ΔW on the table (entries, dimensions), of which a forward pass needs the rows looked up."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from randlora.adapter.kinds.kind import Adapter, LayerKind


class EmbeddingKind(LayerKind):
    """`nn.Embedding`; the row of `padding_idx` stays what it is.

    Dropout drops the whole update of a token, the input of the update being its one-hot vector. A subclass of
    `nn.Embedding` with a forward of its own (one that scales) is called with W₀ + ΔW as its weight.
    """

    types = (nn.Embedding,)
    forwards = (nn.Embedding.forward,)

    def refusal(self, layer: Any) -> str:
        """See `LayerKind`."""
        if layer.max_norm is not None:
            return "max_norm=None (it rewrites the base weight in every forward pass)"
        if layer.scale_grad_by_freq:
            return "scale_grad_by_freq=False (the gradients of an update are those of its bases, not of rows)"
        if layer.sparse and not self.is_plain(layer):
            return "sparse=False on an embedding with a forward of its own"
        return super().refusal(layer)

    def takes_dropout(self, layer: nn.Module) -> bool:
        """Where tokens are looked up one by one."""
        return self.is_plain(layer)

    def leave_out(self, layer: Any, delta: Tensor) -> Tensor:
        """ΔW with zeros in the row of `padding_idx`."""
        padding = layer.padding_idx
        return delta if padding is None else delta.index_fill(0, torch.tensor([padding], device=delta.device), 0)

    def forward(self, adapter: Adapter, adapter_names: list[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The rows of W₀ plus those of ΔW."""
        if adapter_names and not self.is_plain(adapter.get_base_layer()):
            weight = adapter.folded(adapter_names)
            folded: Tensor = functional_call(adapter.base_layer, {"weight": weight}, (x, *args), kwargs)
            return folded
        return super().forward(adapter, adapter_names, x, *args, **kwargs)

    def add_to_rows(
        self, adapter: Adapter, result: Tensor, rows: Tensor, adapter_name: str, x: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """See `LayerKind`."""
        if self.is_plain(adapter.get_base_layer()):
            return super().add_to_rows(adapter, result, rows, adapter_name, x, *args, **kwargs)
        part = self.forward(adapter, [adapter_name], x[rows], *args, **kwargs)
        # A table of positions may give one sample for all.
        result, part = (out.expand(count, *out.shape[1:]) for out, count in ((result, len(x)), (part, len(rows))))
        return result.index_copy(0, rows, part)

    def update(self, adapter: Adapter, adapter_name: str, x: Tensor) -> Tensor:
        """The rows of ΔW."""
        rows = adapter.rows(adapter_name, x)
        padding = adapter.get_base_layer().padding_idx
        if padding is not None:
            rows = rows.masked_fill((x == padding)[..., None], 0)
        dropout: nn.Module = adapter.adapter_dropout[adapter_name]
        return rows * dropout(torch.ones_like(x, dtype=rows.dtype))[..., None] if adapter.drops(adapter_name) else rows
