"""Another adapter's numbers in place: its outputs, no new compilation, and no change where it does not fit."""

import peft
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from networks import FAMILIES, Net, llama, random_config, rows, token_ids
from randlora import swap_adapter
from randlora.errors import CheckpointError, ConfigError, UpdateError

TARGETS = ["a", "b", "c"]


def adapted(start=0, targets=TARGETS, build=Net, **options):
    base, config = build(), random_config(target_modules=targets, **options)
    torch.manual_seed(start)
    return peft.get_peft_model(base, config).eval()


@pytest.mark.parametrize("bases", FAMILIES)
def test_the_outputs_are_the_other_adapters(tmp_path, bases):
    other = adapted(1, bases=bases, modules_to_save=["c"], targets=["a", "b"])
    with torch.no_grad():
        other.base_model.model.c.modules_to_save["default"].weight.add_(1)
    other.save_pretrained(tmp_path)
    model = adapted(2, bases=bases, modules_to_save=["c"], targets=["a", "b"])
    places = [parameter.data_ptr() for parameter in model.parameters()]
    assert not torch.allclose(model(rows()), other(rows()))
    swap_adapter(model, tmp_path)
    assert torch.equal(model(rows()), other(rows()))
    assert [parameter.data_ptr() for parameter in model.parameters()] == places


def test_one_of_several_adapters(tmp_path):
    adapted(1).save_pretrained(tmp_path)
    model = adapted(2)
    model.add_adapter("second", random_config(target_modules=TARGETS))
    first = model(rows())
    swap_adapter(model, tmp_path, "second")
    assert torch.equal(model(rows()), first)
    model.set_adapter("second")
    torch.testing.assert_close(model(rows()), adapted(1)(rows()))


@pytest.mark.slow
def test_a_compiled_model_is_not_compiled_again(tmp_path):
    for start in (1, 2):
        adapted(start).save_pretrained(tmp_path / str(start))
    counter = CompileCounter()
    model = torch.compile(adapted(3), backend=counter)
    with torch.no_grad():
        model(rows())
        compiled = counter.frame_count
        assert compiled > 0
        for start in (1, 2):
            swap_adapter(model, tmp_path / str(start))
            torch.testing.assert_close(model(rows()), adapted(start)(rows()))
    assert counter.frame_count == compiled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bases": "uniform"}, "bases"),
        ({"seed": 5}, "seed"),
        ({"alpha": 3.0}, "alpha"),
        ({"r": 5}, "r of the adapter"),
        ({"alpha_pattern": {"a": 1.0}}, "alpha_pattern"),
        ({"targets": ["a"]}, r"\.b\."),
        ({"bias": "all"}, "bias of the adapter"),  # they would stay when the next adapter is swapped in
        ({"modules_to_save": None}, r"a tensor .*c\.weight"),
        ({"targets": ["a"], "modules_to_save": ["b", "c"]}, r"b\.\w+: expected none that the loaded adapter lacks"),
    ],
)
def test_adapters_that_do_not_fit(tmp_path, options, message):
    fitting = {"targets": ["a", "b"], "modules_to_save": ["c"]}
    adapted(1, **{**fitting, **options}).save_pretrained(tmp_path)
    model = adapted(2, **fitting)
    before = model(rows())
    with pytest.raises(CheckpointError, match=message):
        swap_adapter(model, tmp_path)
    assert torch.equal(model(rows()), before)


def test_a_module_that_only_the_other_one_trained_is_left_as_it_is(tmp_path):
    adapted(1, modules_to_save=["c"], targets=["a", "b"]).save_pretrained(tmp_path)
    model = adapted(2, targets=["a", "b"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"c\.weight: expected none that the loaded adapter lacks"):
        swap_adapter(model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("save_embedding_layers", [True, False])
def test_beside_the_base_tables(tmp_path, save_embedding_layers):
    other, model = (adapted(start, ["embed_tokens", "q_proj"], llama) for start in (1, 2))
    expected = other(token_ids()).logits
    assert not torch.allclose(model(token_ids()).logits, expected)
    other.save_pretrained(tmp_path, save_embedding_layers=save_embedding_layers)
    swap_adapter(model, tmp_path)
    assert torch.equal(model(token_ids()).logits, expected)


def test_other_refusals(tmp_path):
    model = adapted(1)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        swap_adapter(model, tmp_path / "absent")
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'other'"):
        swap_adapter(model, tmp_path, "other")
    lora = peft.get_peft_model(Net(), peft.LoraConfig(r=2, target_modules=["a"]))
    with pytest.raises(ConfigError, match="randlora's"):
        swap_adapter(lora, tmp_path)
    model.merge_adapter()
    with pytest.raises(UpdateError, match="unmerge_adapter"):
        swap_adapter(model, tmp_path)
    lora.save_pretrained(tmp_path / "lora")
    with pytest.raises(CheckpointError, match="peft_type"):
        swap_adapter(adapted(1), tmp_path / "lora")


def test_how_the_update_is_applied_need_not_be_the_same(tmp_path):
    options = {"r": 4, "target_modules": ["a", "b"]}
    source = peft.get_peft_model(Net(), random_config(**options, strategy_pattern={"a": "folded"}))
    source.save_pretrained(tmp_path)
    model = peft.get_peft_model(Net(), random_config(**options, strategy="factored"))
    swap_adapter(model, tmp_path)
    torch.testing.assert_close(model(rows()), source(rows()))
