"""RandLoRA on layers other than linear ones: the kind of layer from one parent, λ, γ and ΔW from the other."""

from torch import Tensor

from randlora.adapter.convolution import ConvolutionLayer
from randlora.adapter.embedding import EmbeddingLayer
from randlora.adapter.layer import RandLoraLayer
from randlora.adapter.parameters import ParameterLayer
from randlora.adapter.weights import read_weight
from randlora.update import delta_rows


class RandLoraConvolution(ConvolutionLayer, RandLoraLayer):
    """A convolution with RandLoRA adapters."""


class RandLoraParameter(ParameterLayer, RandLoraLayer):
    """A parameter with RandLoRA adapters; the matrices of a stack have λ and γ of their own and share the bases."""


class RandLoraEmbedding(EmbeddingLayer, RandLoraLayer):
    """An embedding with RandLoRA adapters."""

    def _rows(self, adapter_name: str, ids: Tensor) -> Tensor:
        if self.strategy[adapter_name] == "reference" or not self.small_is_input:
            return super()._rows(adapter_name, ids)  # a table with fewer rows than columns is small
        lambda_, gamma = self.diagonals(adapter_name)
        form = self.form(adapter_name, ids.device, read_weight(self.get_base_layer()).dtype)
        return delta_rows(ids, self.update_spec(adapter_name), form, lambda_, gamma)
