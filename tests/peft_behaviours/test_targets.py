"""Which modules a config adapts, and what is said where it names none."""

import peft
import pytest
import torch
from torch import nn

from every_method import adapted, config, layers
from networks import Net, bert, llama, rows
from randlora.errors import LayerError


def names(model):
    return {name.removeprefix("base_model.model.") for name, part in model.named_modules() if part in layers(model)}


def on_llama(method, **options):
    found = names(peft.get_peft_model(llama(), config(method, task_type="CAUSAL_LM", **options)))
    return {name.removeprefix("model.layers.") for name in found}


LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] + [
    f"mlp.{part}_proj" for part in ("gate", "up", "down")
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target_modules": "all-linear"}, {f"{block}.{name}" for block in (0, 1) for name in LINEARS}),
        ({"target_modules": ["q_proj"]}, {"0.self_attn.q_proj", "1.self_attn.q_proj"}),
        ({"target_modules": {"0.mlp.up_proj"}}, {"0.mlp.up_proj"}),
        ({"target_modules": r".*\.1\.mlp\.(up|down)_proj"}, {"1.mlp.up_proj", "1.mlp.down_proj"}),
        ({"target_modules": ["q_proj"], "layers_to_transform": 1}, {"1.self_attn.q_proj"}),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
            {"0.self_attn.q_proj"},
        ),
        ({"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*\.0\..*|.*up_proj"}, {"1.self_attn.q_proj"}),
        (
            {"target_modules": "all-linear", "exclude_modules": ["mlp.up_proj", *LINEARS[:-1]]},
            {"0.mlp.down_proj", "1.mlp.down_proj"},
        ),
    ],
)
def test_matched_names(method, options, expected):
    assert on_llama(method, **options) == expected


def test_without_targets_the_architectures_own(method):
    assert on_llama(method, target_modules=None) == on_llama(method, target_modules=["q_proj", "v_proj"])
    with pytest.raises(ValueError, match="target_modules"):
        peft.get_peft_model(Net(), config(method, target_modules=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["nothing_like_it"]}, "nothing_like_it"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ["a"], "exclude_modules": ["a"]}, "target"),
    ],
)
def test_no_module_is_matched(method, options, message):
    base = Net()
    with pytest.raises(ValueError, match=message):
        peft.get_peft_model(base, config(method, **options))
    assert list(base.state_dict()) == list(Net().state_dict())


def test_no_block_of_these_numbers(method):
    with pytest.raises(ValueError, match="layers_to_transform"):
        on_llama(method, target_modules=["q_proj"], layers_to_transform=[9])


def test_an_exclusion_that_matches_nothing_is_warned_of(method, recwarn):
    adapted(method, target_modules=["a"], exclude_modules=["nothing_like_it"])
    assert any("exclude_modules" in str(w.message) for w in recwarn)


@pytest.mark.parametrize(
    "module", [nn.EmbeddingBag(5, 6), nn.ConvTranspose2d(3, 4, 2), nn.LayerNorm(4), nn.LSTM(3, 4), nn.Bilinear(3, 4, 5)]
)
def test_a_layer_of_no_known_kind_is_named_and_nothing_replaced(method, module):
    base = nn.ModuleDict({"fine": nn.Linear(4, 4), "odd": module})
    with pytest.raises(LayerError, match=f"'odd'.*{type(module).__name__}") as caught:
        peft.get_peft_model(base, config(method, target_modules=["fine", "odd"]))
    assert "\n" not in str(caught.value)
    assert type(base["fine"]) is nn.Linear


def test_all_linear_leaves_a_classifiers_head_to_be_trained_whole(method):
    model = peft.get_peft_model(bert(), config(method, target_modules="all-linear", task_type="SEQ_CLS"))
    assert "classifier" not in {name.rsplit(".", 1)[-1] for name in names(model)}
    assert set(model.base_model.model.classifier.modules_to_save) == {"default"}


def test_a_second_adapter_on_other_layers(method):
    model = adapted(method, target_modules=["a"])
    expected = model(rows())
    model.add_adapter("other", config(method, target_modules=["c"]))
    assert names(model) == {"a", "c"}
    assert model.targeted_module_names == ["a", "c"]
    assert torch.equal(model(rows()), expected)
    with pytest.raises(ValueError, match="nothing_like_it"):
        model.add_adapter("third", config(method, target_modules=["nothing_like_it"]))
    assert set(model.peft_config) == {"default", "other"}
    assert torch.equal(model(rows()), expected)
