"""AutoLoRA: the gradient of the selection variables, the ranks found, and a run of two trainings that is resumed."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from randlora.cli import main
from randlora.errors import ConfigError, LayerError
from randlora.methods.autolora import AutoLoraConfig, count_selected, find_selections, select_terms
from randlora.training import MethodConfig, PreferenceData, evaluate, train, validate
from randlora.training.inspection import inspect_run
from randlora.training.run.folder import RunFolder
from randlora.training.run.look_ahead import look_ahead_gradient
from randlora.training.run.rank_search import SelectionGradient, SelectionTrainer
from randlora.training.run.record import Record


@pytest.fixture
def config(text_config):
    text_config.method = MethodConfig(name="autolora", r=3, options={"search_steps": 4})
    text_config.data.validation = 0.25
    text_config.optimization = replace(text_config.optimization, max_steps=4, save_steps=2)
    return text_config


def with_options(config, output=None, **options):
    method = replace(config.method, options={**config.method.options, **options})
    return replace(config, method=method, output=str(output or config.output))


def adapted(*layers, r=3):
    linear = [str(number) for number, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    model = peft.get_peft_model(nn.Sequential(*layers), AutoLoraConfig(r=r, lora_alpha=2 * r, target_modules=linear))
    select_terms(model)
    return model


def tensors(output):
    return load_file(Path(output) / "adapter" / "adapter_model.safetensors")


def equal(first, second):
    first, second = tensors(first), tensors(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_layer_is_the_sum_of_its_selected_terms():
    torch.manual_seed(0)
    model = adapted(nn.Linear(5, 4), r=3).double()
    layer = model.base_model.model[0]
    A, B, a = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.lora_A["default"].selection
    x = torch.randn(2, 5, dtype=torch.float64)
    with torch.no_grad():
        B.normal_()
        a.normal_()
        alpha = a.exp() / a.exp().sum()
        delta = 2 * sum(alpha[j] * torch.outer(B[:, j], A[j]) for j in range(3))
        torch.testing.assert_close(model(x), x @ (layer.base_layer.weight + delta).T + layer.base_layer.bias)


@pytest.mark.parametrize("rate", [0.0, 0.05])
def test_the_look_ahead_is_the_derivative_through_a_step_of_the_weights(rate):
    """Against autograd's second derivative, on two layers with a tanh between."""
    torch.manual_seed(0)
    x, y, held_x, held_y = (torch.randn(6, size, dtype=torch.float64) for size in (5, 2, 5, 2))
    model = adapted(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    selections = list(find_selections(model).values())
    weights = [part for name, part in model.named_parameters() if part.requires_grad and "selection" not in name]
    with torch.no_grad():
        for part in (*weights, *selections):
            part.normal_()
    before = [part.detach().clone() for part in weights]

    def loss(inputs, wanted, moved=None):
        named = dict(model.named_parameters()) | (moved or {})
        return (torch.func.functional_call(model, named, (inputs,)) - wanted).square().mean()

    def gradients(inputs, wanted):
        found = torch.autograd.grad(loss(inputs, wanted), [*weights, *selections])
        return list(found[: len(weights)]), list(found[len(weights) :])

    names = {id(part): name for name, part in model.named_parameters()}
    step = torch.autograd.grad(loss(x, y), weights, create_graph=True)
    moved = {names[id(w)]: w - rate * s for w, s in zip(weights, step, strict=True)}
    exact = torch.autograd.grad(loss(held_x, held_y, moved), selections)
    step = [part.detach() for part in step]
    found = look_ahead_gradient(weights, step, rate, lambda: gradients(x, y), lambda: gradients(held_x, held_y))
    torch.testing.assert_close(found, list(exact), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(part, origin) for part, origin in zip(weights, before, strict=True))
    _, first_order = gradients(held_x, held_y)
    off = max(float((f - e).abs().max()) for f, e in zip(first_order, exact, strict=True))
    assert (off > 0.1) == (rate > 0)  # the step has something to say


def test_the_rank_is_the_number_of_terms_above_the_threshold():
    a = torch.tensor([0.6, 0.3, 0.1]).log()
    assert [count_selected(a, threshold) for threshold in (None, 0.2, 0.05, 0.5, 0.99)] == [1, 2, 3, 1, 1]
    assert [count_selected(torch.zeros(k), None) for k in range(2, 40)] == list(range(2, 40))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_rank_is_of_terms_that_are_there_and_falls_with_the_threshold(values, one, other):
    a = torch.tensor(values, dtype=torch.float64)
    ranks = [count_selected(a, threshold) for threshold in sorted((one, other))]
    assert len(values) >= ranks[0] >= ranks[1] >= 1
    alpha = [math.exp(value) / sum(map(math.exp, values)) for value in values]
    assert ranks[0] <= max(1, 1 / min(one, other))  # as they sum to 1
    if all(abs(share - one) > 1e-9 for share in alpha):
        assert count_selected(a, one) == max(1, sum(share > one for share in alpha))


def test_the_layer_of_higher_rank_gets_the_higher_rank():
    """Two layers side by side, whose weights are to change by matrices of rank 1 and 4."""
    torch.manual_seed(0)
    size, rank, changes = 16, 8, []
    for true_rank in (1, 4):
        left, right = (torch.linalg.qr(torch.randn(size, true_rank))[0] for _ in range(2))
        changes.append(2 * left @ right.T)
    model = adapted(nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False), r=rank)
    layers = [model.base_model.model[number] for number in range(2)]
    wanted = [layer.base_layer.weight + change for layer, change in zip(layers, changes, strict=True)]
    selections = list(find_selections(model).values())
    weights = [part for name, part in model.named_parameters() if part.requires_grad and "selection" not in name]
    optimizer = torch.optim.Adam([{"params": weights, "lr": 1e-2}, {"params": selections, "lr": 1e-1}])

    def gradients(x):
        losses = [(layer(x) - x @ weight.T).square().mean() for layer, weight in zip(layers, wanted, strict=True)]
        found = torch.autograd.grad(sum(losses), [*weights, *selections])
        return list(found[: len(weights)]), list(found[len(weights) :])

    seen, held_out = torch.randn(2, 64, size)
    for _ in range(200):
        step, _ = gradients(seen)
        found = look_ahead_gradient(weights, step, 1e-2, lambda: gradients(seen), lambda: gradients(held_out))
        for part, gradient in zip([*weights, *selections], [*step, *found], strict=True):
            part.grad = gradient
        optimizer.step()
    low, high = (count_selected(selection, None) for selection in selections)
    assert low <= 2
    assert high == 4


def test_a_run_searches_and_trains_anew_as_plain_lora_with_the_ranks_found(config, tmp_path, capsys):
    record = train(config)
    ranks = record.rank_search["ranks"]
    assert len(ranks) == 13
    assert len(set(ranks.values())) > 1
    assert (record.rank_search["steps"], record.rank_search["look_ahead"]) == (4, True)
    assert record.rank_search["threshold"] == pytest.approx(1 / 3)
    saved = json.loads((Path(config.output) / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["rank_pattern"] == {f"^{name}": rank for name, rank in ranks.items()}
    lora = MethodConfig(name="lora", r=3, options={"rank_pattern": saved["rank_pattern"]})
    plain = train(replace(config, method=lora, output=str(tmp_path / "plain")))
    assert equal(config.output, tmp_path / "plain")
    assert record.metrics == plain.metrics
    shapes = {name: part.shape for name, part in tensors(config.output).items() if "lora_" in name}
    assert {rank for shape in shapes.values() for rank in shape} >= set(ranks.values())
    assert record.trainable_parameters == plain.trainable_parameters == sum(s.numel() for s in shapes.values())
    assert record.history == plain.history  # of the training, which began at the first step again
    assert evaluate(config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)
    assert main(["inspect", config.output]) == 0
    shown = capsys.readouterr().out
    for name, rank in ranks.items():
        assert re.search(rf"{re.escape(name)} +{rank} ", shown)
    assert train(config) == record  # finished
    path = Path(config.output) / "record.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["rank_search"]  # as records had none
    path.write_text(json.dumps(content), encoding="utf-8")
    assert Record.load(path.parent) == replace(record, rank_search={})


@pytest.mark.slow
def test_an_interrupted_run_goes_on_in_either_phase(config, interrupted, tmp_path):
    config.method.options["search_steps"] = 3
    whole = train(replace(config, output=str(tmp_path / "whole")))
    folder = RunFolder(config.output)
    interrupted(config, 2)
    assert folder.checkpoint(folder.search).name == "checkpoint-2"
    assert folder.found_ranks() is None
    interrupted(config, 3)  # of the training, as the search has three steps
    assert folder.checkpoint().name == "checkpoint-2"
    assert folder.found_ranks()["ranks"] == whole.rank_search["ranks"]
    record = train(config)
    assert equal(config.output, tmp_path / "whole")
    assert record.rank_search["ranks"] == whole.rank_search["ranks"]
    assert record.metrics == pytest.approx(whole.metrics, rel=1e-6)
    assert record.history == whole.history
    assert not folder.checkpoints.exists()


@pytest.fixture
def without_dropout(monkeypatch):
    """Nothing is drawn in a forward pass."""
    monkeypatch.setattr(nn.Dropout, "forward", lambda _, x: x)
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", _attention)


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, scale=None, **_):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -1e9) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(dim=-1) @ value


def large_steps(config, **keys):
    section = replace(config.optimization, learning_rate=5e-2, warmup_ratio=0.0, max_steps=3, **keys)
    return replace(config, optimization=section)


@pytest.mark.slow
def test_a_search_without_look_ahead_says_so(config, monkeypatch, without_dropout):
    """The selection variables then get the gradient of the validation loss where the weights are."""
    sizes = []
    ordinary = SelectionGradient.on_pre_optimizer_step

    def compare(self, args, state, control, **kwargs):
        trainer = self.trainer
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(trainer._validation_batch()))
        wanted = torch.autograd.grad(loss, trainer.selections)
        torch.testing.assert_close(trainer.found, list(wanted), rtol=1e-3, atol=1e-7)
        sizes.append(max(float(part.abs().max()) for part in wanted))
        ordinary(self, args, state, control, **kwargs)

    monkeypatch.setattr(SelectionGradient, "on_pre_optimizer_step", compare)
    record = train(with_options(large_steps(config), look_ahead=False, search_steps=3))
    assert record.rank_search["look_ahead"] is False
    assert len(sizes) == 3
    assert sizes[0] == 0  # B starts at 0
    assert max(sizes) > 1e-4


@pytest.mark.slow
def test_accumulated_batches_are_one(config, monkeypatch, without_dropout):
    """To the look-ahead, which alone gives the selection variables a gradient in the first step, where B is 0."""
    gradients, batches = [], []
    drawn = SelectionTrainer._validation_batch

    def stop(self, *_, **__):
        gradients.append(self.trainer.found)
        raise KeyboardInterrupt

    def first(self):
        batches[:] = batches or [drawn(self)]
        return batches[0]

    monkeypatch.setattr(SelectionGradient, "on_pre_optimizer_step", stop)
    monkeypatch.setattr(SelectionTrainer, "_validation_batch", first)
    for size, passes in ((8, 1), (4, 2)):
        one = large_steps(config, batch_size=size, gradient_accumulation_steps=passes)
        with pytest.raises(KeyboardInterrupt):
            train(replace(one, output=f"{config.output}-{passes}"))
    once, twice = gradients
    torch.testing.assert_close(once, twice, rtol=1e-3, atol=0)
    assert min(float(part.abs().max()) for part in once) > 0


def test_what_cannot_be_searched_is_refused_in_a_line(config):
    wrong = [
        ({"threshold": 1.0}, r"^method\.options\.threshold: expected a number between 0 and 1, or null, got 1\.0"),
        ({"search_steps": 0}, r"^method\.options\.search_steps: expected an integer of 1 or more"),
        ({"selection_learning_rate": 0.0}, r"^method\.options\.selection_learning_rate: expected"),
        ({"look_ahead": "yes"}, r"^method\.options\.look_ahead: expected true or false, got 'yes'"),
        ({"rank_pattern": {}}, r"^method\.options\.rank_pattern: expected a known"),
        ({"use_dora": True}, r"^method\.options\.use_dora: expected a known"),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigError, match=message) as caught:
            validate(with_options(config, **options))
        assert "\n" not in str(caught.value)
    others = [
        (replace(config, method=MethodConfig(name="autolora", r=1)), r"^method\.r: expected a rank of 2 or more"),
        (replace(config, data=replace(config.data, validation=None)), r"^data\.validation: expected one, for method"),
    ]
    section = replace(config.optimization, precision="fp16")
    others.append((replace(config, optimization=section), r"^optimization\.precision: expected bf16 or fp32"))
    preference = replace(config, task="preference", data=PreferenceData(train="pairs.jsonl", validation=0.5))
    others.append((preference, r"^method\.name: expected another method with preference, got autolora"))
    for whole, message in others:
        with pytest.raises(ConfigError, match=message):
            validate(whole)
    model = peft.get_peft_model(nn.Sequential(nn.Embedding(5, 4)), AutoLoraConfig(r=2, target_modules=["0"]))
    with pytest.raises(LayerError, match=r"^autolora: expected linear layers with a plain LoRA, got 0, a Embedding"):
        select_terms(model)


def test_damaged_ranks_are_passed_over_with_a_line(tmp_path, caplog):
    folder = RunFolder(tmp_path)
    assert folder.found_ranks() is None
    folder.save_ranks({"ranks": {"a": 1}})
    assert folder.found_ranks() == {"ranks": {"a": 1}}
    (folder.checkpoints / "ranks.json").write_text("[", encoding="utf-8")
    assert folder.found_ranks() is None
    assert "ranks.json is passed over" in caplog.text


def test_a_planned_run_is_inspected(config):
    found = inspect_run(config)
    assert found.title == "autolora, in its search"
    linear = 2 * (4 * (16 + 16) + 2 * (16 + 32)) + 16 + 16  # of two blocks and the pooler
    assert found.trained == 3 * linear + 13 * 3  # with the selection variables
