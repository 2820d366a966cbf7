"""RandLoRA on layers other than linear ones: the kind of layer from one parent, λ, γ and ΔW from the other."""

from randlora.adapter.convolution import ConvolutionLayer
from randlora.adapter.layer import RandLoraLayer


class RandLoraConvolution(ConvolutionLayer, RandLoraLayer):
    """A convolution with RandLoRA adapters."""
