"""Adapters on embeddings: ΔW on the matrix (entries, dimensions), of which a forward pass needs the rows looked up."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randlora.adapter.base_layer import AdapterLayer


class EmbeddingLayer(AdapterLayer):
    """An `nn.Embedding` with adapters of one method; the row of `padding_idx` stays what it is.

    Dropout drops the whole update of a token, the input of the update being its one-hot vector. A subclass of
    `nn.Embedding` with a forward of its own (one that scales) is called with W₀ + ΔW as its weight.
    """

    base_types = (nn.Embedding,)

    @classmethod
    def refusal(cls, layer: Any) -> str:
        """What a layer without adapters would have to be for this class to adapt it; empty if it can."""
        if isinstance(layer, nn.Embedding):
            if layer.max_norm is not None:
                return "max_norm=None (it rewrites the base weight in every forward pass)"
            if layer.scale_grad_by_freq:
                return "scale_grad_by_freq=False (the gradients of an update are those of its bases, not of rows)"
            if layer.sparse and type(layer).forward is not nn.Embedding.forward:
                return "sparse=False on an embedding with a forward of its own"
        return super().refusal(layer)

    @classmethod
    def takes_dropout(cls, layer: nn.Module) -> bool:
        """Whether the inputs of an update on this layer can be dropped."""
        return type(layer).forward is nn.Embedding.forward

    def _update(self, adapter_name: str, x: Tensor) -> Tensor:
        rows = self._rows(adapter_name, x)
        padding = self.get_base_layer().padding_idx
        if padding is not None:
            rows = rows.masked_fill((x == padding)[..., None], 0)
        dropout: nn.Module = self.adapter_dropout[adapter_name]
        return rows * dropout(torch.ones_like(x, dtype=rows.dtype))[..., None] if self._drops(adapter_name) else rows

    def _rows(self, adapter_name: str, ids: Tensor) -> Tensor:
        """The rows of ΔW; a method overrides it where it need not form ΔW."""
        return F.embedding(ids, self._delta_weight(adapter_name))

    def _delta_weight(self, adapter_name: str) -> Tensor:
        delta = super()._delta_weight(adapter_name)  # type: ignore[safe-super] # the method's, by the order of bases
        padding = self.get_base_layer().padding_idx
        return delta if padding is None else delta.index_fill(0, torch.tensor([padding], device=delta.device), 0)
