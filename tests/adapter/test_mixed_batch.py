"""Batches in which every sample names its own adapter: each row is what its adapter alone gives."""

import peft
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from networks import MODELS, Net, llama, random_config, rows, token_ids
from randlora.errors import UpdateError

NAMES = ["other", "__base__", "default", "other", "default"]


def with_two_adapters(base, targets, **options):
    model = peft.get_peft_model(base, random_config(target_modules=targets, **options))
    # another rank, family and strategy, and not on every layer
    other = random_config(target_modules=targets[:-1], **{**options, "r": 3, "bases": "uniform"})
    model.add_adapter("other", other)
    return model.eval()


def by_one(model, call, inputs, names):
    """Row by row: `call(model, row)` with the row's adapter active."""
    outputs = []
    for row, name in zip(inputs.split(1), names, strict=True):
        if name == "__base__":
            with model.disable_adapter():
                outputs.append(call(model, row))
        else:
            model.set_adapter(name)
            outputs.append(call(model, row))
    model.set_adapter("default")
    return torch.cat(outputs)


@pytest.mark.parametrize("strategy", ["auto", "folded", "reference"])
def test_every_row_is_what_its_adapter_gives(strategy):
    model = with_two_adapters(Net().double(), ["a", "b", "c"], strategy=strategy)
    x = rows().double()
    expected = by_one(model, lambda m, row: m(row), x, NAMES)
    torch.testing.assert_close(model(x, adapter_names=NAMES), expected)
    torch.testing.assert_close(model(x), by_one(model, lambda m, row: m(row), x, ["default"] * 5))  # no hook stays
    with model.disable_adapter():
        base = model(x, adapter_names=NAMES)
    torch.testing.assert_close(base, Net().double()(x))


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_with_heads_of_their_own(name):
    build, targets, task = MODELS[name]
    model = with_two_adapters(build(), targets, task_type=task)
    if task == "SEQ_CLS":
        with torch.no_grad():
            model.base_model.model.classifier.modules_to_save["other"].weight.add_(1)
    ids, names = token_ids().repeat(2, 1), ["other", "default", "__base__", "other"]
    expected = by_one(model, lambda m, row: m(row).logits, ids, names)
    torch.testing.assert_close(model(ids, adapter_names=names).logits, expected)
    assert (expected[0] - expected[2]).abs().max() > 1e-3


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation(num_beams):
    encoder_decoder = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=24, d_kv=12, d_ff=40, num_layers=2, num_heads=2, decoder_start_token_id=0)
    )
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": num_beams, "do_sample": False}
    cases = [
        (llama(), ["q_proj", "v_proj", "down_proj"], "CAUSAL_LM"),
        (encoder_decoder, ["q", "v", "wi"], "SEQ_2_SEQ_LM"),
    ]
    for base, targets, task in cases:
        model = with_two_adapters(base, targets, task_type=task)
        ids, names = token_ids().repeat(2, 1), ["other", "default", "__base__", "default"]
        expected = by_one(model, lambda m, row: m.generate(input_ids=row, **options), ids, names)
        found = model.generate(input_ids=ids, adapter_names=names, **options)
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["default"] * 4, "expected 5 names, one per sample, got 4"),
        (["default", "absent", "other", "default", "other"], r"absent"),
        ("other", "a list"),
    ],
)
def test_refusals(names, message):
    model = with_two_adapters(Net(), ["a", "b", "c"])
    expected = model(rows())
    with pytest.raises(UpdateError, match=message):
        model(rows(), adapter_names=names)
    assert torch.equal(model(rows()), expected)  # no hook stays behind


def test_in_training_and_merged():
    model = with_two_adapters(Net(), ["a", "b", "c"])
    with pytest.raises(UpdateError, match="evaluation mode"):
        model.train()(rows(), adapter_names=NAMES)
    model.eval().merge_adapter(["other"])
    with pytest.raises(UpdateError, match=r"no merged adapter, got \['other'\]"):
        model(rows(), adapter_names=NAMES)
    model.unmerge_adapter()
    model(rows(), adapter_names=NAMES)


def test_gradients_reach_each_adapter_through_its_own_rows():
    model = with_two_adapters(Net(), ["a", "b", "c"])
    model.base_model.set_adapter(["default", "other"])
    model(rows(), adapter_names=["default"] * 5).sum().backward()
    layer = model.base_model.model.a
    assert layer.randlora_gamma["default"].weight.grad.abs().max() > 0
    assert layer.randlora_gamma["other"].weight.grad is None
