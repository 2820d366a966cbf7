"""Small models with one kind of adapted layer each, and the literal equation 4 on them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from networks import random_config
from randlora.adapter import AdapterLayer
from randlora.adapter.kinds import StackedWeight


class Sum(nn.Module):
    """Layers of one input side by side; returns their outputs, flattened, in a row."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return torch.cat([layer(x).flatten(1) for layer in self.layers], dim=1)


class Scaled(nn.Embedding):
    """As Gemma's: the rows times a factor."""

    def forward(self, x):
        return 3 * super().forward(x)


class Attention(nn.Module):
    """Packed, and with keys and values of their own widths."""

    def __init__(self):
        super().__init__()
        self.packed = nn.MultiheadAttention(6, 2, batch_first=True, add_bias_kv=True)
        self.apart = nn.MultiheadAttention(6, 3, batch_first=True, kdim=4, vdim=5, bias=False)

    def forward(self, x):
        x = x + self.packed(x, x, x, need_weights=False)[0]
        return x + self.apart(x, x[..., :4], value=x[..., 1:])[0]


class Experts(nn.Module):
    """Every expert on every row, stacked (experts, in, out) and (experts, out, in); and a weight (out, in)."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 6, 11) / 3)
        self.down = nn.Parameter(torch.randn(3, 5, 11) / 3)
        self.gate = nn.Parameter(torch.randn(3, 6) / 3)

    def forward(self, x):
        hidden = torch.tanh(torch.einsum("ti,eio->teo", x, self.up))
        outputs = torch.einsum("tei,eoi->teo", hidden, self.down)
        return (outputs * (x @ self.gate.T).softmax(1)[:, :, None]).sum(1)


class Packed(nn.Module):
    """Stands in for a GPTQ or AWQ layer, whose kernels need a GPU."""

    def __init__(self, layer):
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.register_buffer("qweight", (64 * layer.weight.detach()).round().to(torch.int8))

    def forward(self, x):
        return nn.functional.linear(x, self.qweight.to(x.dtype) / 64, self.bias)


@dataclass
class Kind:
    """How to build the model, what to adapt, and a batch (integers, or standard normal numbers of a shape)."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    ids: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def plain(self):
        torch.manual_seed(1)
        return self.build().eval()

    def adapted(self, **options):
        config = random_config(**{"target_modules": [str(i) for i in range(9)], **self.options, **options})
        return peft.get_peft_model(self.plain(), config).eval()

    def batch(self, dtype=torch.float32):
        generator = torch.Generator().manual_seed(3)
        if self.ids:
            return torch.randint(self.ids, self.shape, generator=generator)
        return torch.randn(self.shape, generator=generator).to(dtype)


KINDS = {
    "conv1d": Kind(
        lambda: Sum(
            nn.Conv1d(6, 9, 3, stride=2, padding=2, dilation=2, padding_mode="reflect"),
            nn.Conv1d(6, 4, 5, groups=2, padding="same", padding_mode="circular", bias=False),
        ),
        (3, 6, 11),
    ),
    "conv2d": Kind(
        lambda: Sum(
            nn.Conv2d(6, 10, (3, 2), stride=(1, 2), padding=(1, 0)),
            nn.Conv2d(6, 6, 3, groups=6, padding=1, padding_mode="replicate"),
            nn.Conv2d(6, 4, 1, groups=2, dilation=(1, 2)).to(memory_format=torch.channels_last),
            nn.Conv2d(6, 3, 3, padding="same", dilation=2).to(memory_format=torch.channels_last),
        ),
        (3, 6, 7, 8),
    ),
    "embedding": Kind(
        lambda: Sum(
            nn.Embedding(23, 7, padding_idx=2), nn.Embedding(17, 8, sparse=True), nn.Embedding(5, 9), Scaled(19, 6)
        ),
        (3, 6),
        ids=5,
    ),
    "attention": Kind(Attention, (3, 4, 6), options={"target_modules": ["packed", "apart"]}),
    "encoder": Kind(
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 12, dropout=0, batch_first=True), 2, enable_nested_tensor=False
        ),
        (3, 4, 8),
        options={"target_modules": ["self_attn", "linear1"]},
    ),
    "experts": Kind(
        lambda: nn.Sequential(Experts()),
        (7, 6),
        options={"target_modules": None, "target_parameters": ["0.up", "down", "gate"]},
    ),
    "conv3d": Kind(
        lambda: Sum(nn.Conv3d(2, 5, 2, padding=1), nn.Conv3d(2, 6, 2, groups=2, stride=(1, 2, 1), dilation=(2, 1, 1))),
        (2, 2, 3, 4, 3),
    ),
}


def adapted_layers(model):
    """Name of the adapted parameter in the base model -> its layer."""
    found = {}
    for name, layer in model.base_model.model.named_modules():
        if isinstance(layer, AdapterLayer):
            base = layer.get_base_layer()
            stacked = isinstance(base, StackedWeight)
            found[f"{name.split('.updates.')[0]}.{base.name}" if stacked else f"{name}.weight"] = layer
    return found


def equation_4(layer, adapter_name="default", *, stored=True):
    """ΔW = g Σ_j B_j Λ_j A Γ_j as a sum over bases in float64, for every matrix of a stack, as the weight is stored."""
    spec = layer.update_spec(adapter_name)
    A, B = layer.form(adapter_name, torch.device("cpu"), torch.float64).operator(spec.sizes).pair()
    lambda_, gamma = (
        tensors[adapter_name].weight.double() for tensors in (layer.randlora_lambda, layer.randlora_gamma)
    )
    matrices = []
    for diagonals, columns in zip(
        lambda_.reshape(-1, *lambda_.shape[-2:]), gamma.reshape(-1, *gamma.shape[-2:]), strict=True
    ):
        n = spec.sizes.num_bases
        terms = [B[:, j::n] @ torch.diag(diagonals[j]) @ A @ torch.diag(columns[j]) for j in range(n)]
        total = spec.scaling * functools.reduce(torch.add, terms)
        matrices.append(total if spec.small_is_input else total.T)
    base = layer.get_base_layer()
    if getattr(base, "padding_idx", None) is not None:
        matrices[0][base.padding_idx] = 0
    if not stored:
        return matrices[0]
    return matrices[0].T if isinstance(base, Conv1D) else torch.stack(matrices).reshape(base.weight.shape)


def literal_output(kind, model, x, adapters=("default",), delta=equation_4):
    """The plain model in float64 with W₀ + ΔW in place of the adapted parameters.

    Args:
        kind: Of the model.
        model: The model with the adapters.
        x: Its input.
        adapters: Their names.
        delta: (layer, adapter) -> ΔW as the weight is stored.
    """
    plain = kind.plain().double()
    for module in plain.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = False  # autograd cannot reshape a sparse gradient
    weights = dict(plain.named_parameters())
    folded = {
        name: weights[name] + sum(delta(layer, adapter) for adapter in adapters)
        for name, layer in adapted_layers(model).items()
    }
    x = x if kind.ids else x.double()
    return functional_call(plain, folded, (x,))
