"""What is particular to convolutions: dropout, hooks, mixed batches, and what is refused."""

import peft
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from transformers import WhisperConfig, WhisperModel

from kinds import KINDS
from networks import random_config, token_ids
from randlora import RandLoraConfig
from randlora.errors import LayerError

KIND = KINDS["conv2d"]


def test_dropout_acts_on_the_input_of_the_update():
    model = KIND.adapted(dropout=0.5).train()
    layer = model.base_model.model.layers[1]
    seen = []
    layer.adapter_dropout["default"].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    x = KIND.batch()
    output = layer(x)
    assert 0.3 < (seen[0] == 0).float().mean() < 0.7
    base = layer.base_layer
    expected = base(x) + base._conv_forward(seen[0], layer.get_delta_weight("default"), None)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(model.eval()(x), KIND.adapted()(x))


def test_in_a_model_that_asks_for_the_stride():
    sizes = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    config = WhisperConfig(**sizes, **ids, d_model=16, vocab_size=50, num_mel_bins=8, max_source_positions=10)
    model = peft.get_peft_model(WhisperModel(config), random_config(target_modules=["conv1", "conv2", "embed_tokens"]))
    mels = torch.randn(2, 8, 20)
    expected = model.eval()(mels, decoder_input_ids=token_ids()).last_hidden_state
    assert model.get_input_embeddings().embedding_dim == 16
    output = model.merge_and_unload()(mels, decoder_input_ids=token_ids()).last_hidden_state
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


def test_hooks_on_the_base_layer_run():
    model = KIND.adapted()
    x = KIND.batch()
    expected = model(x)
    seen = []
    model.base_model.model.layers[0].base_layer.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert seen


def test_a_batch_of_several_adapters():
    model = KIND.adapted()
    model.add_adapter("second", KIND.adapted(r=2, seed=5).peft_config["default"])
    x = KIND.batch()
    alone = {}
    for name in ("default", "second"):
        model.set_adapter(name)
        alone[name] = model(x)
    with model.disable_adapter():
        alone["__base__"] = model(x)
    names = ["second", "__base__", "default"]
    expected = torch.stack([alone[name][row] for row, name in enumerate(names)])
    torch.testing.assert_close(model(x, adapter_names=names), expected, rtol=1e-4, atol=1e-4)


class Standardized(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


REFUSED = {
    "its own forward": (lambda: Standardized(3, 4, 2), "torch's own"),
    "parametrized": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 2)), "parametrization"),
    "weight norm by hooks": (lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 2)), "remove_spectral_norm"),
    "pruned": (lambda: prune.random_unstructured(nn.Conv2d(3, 4, 2), "weight", 0.5), r"prune\.remove"),
    "empty": (lambda: nn.Conv2d(3, 0, 2), "numbers"),
    "lazy": (lambda: nn.LazyConv2d(4, 2), "call the model once"),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 2), "Linear or .*Conv2d"),
    "complex": (lambda: nn.Conv2d(3, 4, 2, dtype=torch.complex64), "floating-point"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_before_anything_is_replaced(case):
    build, message = REFUSED[case]
    model = nn.ModuleDict({"fine": nn.Conv2d(3, 4, 2), "odd": build()})
    with pytest.raises(LayerError, match=f"'odd'.*{message}") as caught:
        peft.get_peft_model(model, RandLoraConfig(target_modules=["fine", "odd"]))
    assert "\n" not in str(caught.value)
    assert type(model["fine"]) is nn.Conv2d
