"""Adapters on embeddings: ΔW on the matrix (entries, dimensions), of which a forward pass needs the rows looked up."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.weights import is_plain


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
            if layer.sparse and not is_plain(layer):
                return "sparse=False on an embedding with a forward of its own"
        return super().refusal(layer)

    @classmethod
    def takes_dropout(cls, layer: nn.Module) -> bool:
        """Whether the inputs of an update on this layer can be dropped."""
        return is_plain(layer)

    def _add_updates(self, adapter_names: list[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if adapter_names and not is_plain(self.get_base_layer()):
            return functional_call(self.base_layer, {"weight": self._folded(adapter_names)}, (x, *args), kwargs)
        return super()._add_updates(adapter_names, x, *args, **kwargs)

    def _add_to_rows(
        self, result: Tensor, rows: Tensor, adapter_name: str, x: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        if is_plain(self.get_base_layer()):
            return super()._add_to_rows(result, rows, adapter_name, x, *args, **kwargs)
        part = self._add_updates([adapter_name], x[rows], *args, **kwargs)
        # A table of positions may give one sample for all.
        result, part = (out.expand(count, *out.shape[1:]) for out, count in ((result, len(x)), (part, len(rows))))
        return result.index_copy(0, rows, part)

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
