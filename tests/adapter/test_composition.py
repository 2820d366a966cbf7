"""A new method has every kind of layer, and a new kind every method, with nothing written for the pair."""

from dataclasses import dataclass
from typing import ClassVar

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from every_method import METHODS, config, fill
from kinds import KINDS, Kind, Sum, adapted_layers, literal_output
from literal import delta_weight
from randlora.adapter import AdapterLayer, AdapterTuner, kinds, register_method
from randlora.adapter.kinds import LayerKind
from randlora.adapter_config import AdapterConfig


@dataclass
class OuterConfig(AdapterConfig):
    type_name: ClassVar[str] = "TEST_OUTER"
    prefix: ClassVar[str] = "outer_"


class OuterLayer(AdapterLayer):
    """ΔW = u·vᵀ, as a method's author would write it."""

    adapter_layer_names = ("outer_u", "outer_v")

    def update_layer(self, adapter_name, config):
        start = torch.zeros(*self.stack, self.out_features), torch.randn(*self.stack, self.in_features)
        self.add_adapter(adapter_name, start, 1.0, dropout=config.dropout, inference_mode=config.inference_mode)

    def _delta_weight(self, adapter_name):
        u, v = self.trained(adapter_name)
        return self.scaling[adapter_name] * u[..., :, None] * v[..., None, :]


class OuterTuner(AdapterTuner):
    prefix = OuterConfig.prefix
    tuner_layer_cls = OuterLayer


def outer(layer, adapter):
    base = layer.get_base_layer()
    u, v = (getattr(layer, name)[adapter].weight for name in layer.adapter_layer_names)
    u, v = (u, v) if layer.stack else (u[None], v[None])
    matrices = torch.stack([torch.outer(*pair) for pair in zip(u, v, strict=True)])
    if getattr(base, "padding_idx", None) is not None:
        matrices[0, base.padding_idx] = 0
    return matrices.reshape(base.weight.shape)


@pytest.mark.parametrize("kind_name", KINDS)
def test_a_new_method_has_every_kind(kind_name, tmp_path):
    register_method(OuterConfig, OuterTuner)
    kind = KINDS[kind_name]
    own = OuterConfig(**{"target_modules": [str(i) for i in range(9)], **kind.options})
    model = fill(peft.get_peft_model(kind.plain().double(), own)).eval()
    x = kind.batch(torch.float64)
    expected = literal_output(kind, model, x, delta=outer)
    torch.testing.assert_close(model(x), expected)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(kind.plain().double(), tmp_path).eval()
    torch.testing.assert_close(loaded(x), expected)
    torch.testing.assert_close(loaded.merge_and_unload()(x), expected)


class TransposedKind(LayerKind):
    """`nn.ConvTranspose1d`, its kernel flattened to (in, out/groups · k)."""

    types = (nn.ConvTranspose1d,)
    forwards = (nn.ConvTranspose1d.forward,)

    def full_shape(self, layer):
        return tuple(layer.weight.shape)

    def apply_delta(self, adapter, adapter_name, x):
        base = adapter.get_base_layer()
        kernel = self.stored(base, adapter.delta_weight(adapter_name)).to(x.dtype)
        return F.conv_transpose1d(x, kernel, None, base.stride, base.padding, base.output_padding, base.groups)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "hydralora"])
def test_a_new_kind_has_every_method(method, monkeypatch):
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, TransposedKind()))
    kind = Kind(lambda: Sum(nn.ConvTranspose1d(6, 4, 3, stride=2), nn.ConvTranspose1d(6, 8, 5, groups=2)), (3, 6, 7))
    own = config(method, target_modules=["0", "1"])
    model = fill(peft.get_peft_model(kind.plain().double(), own)).eval()
    assert len(adapted_layers(model)) == 2
    x = kind.batch(torch.float64)
    expected = literal_output(kind, model, x, delta=lambda layer, adapter: delta_weight(layer, method, adapter))
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
