"""A search for ranks and the training with them: one run, its record, and how it is resumed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainingArguments

from randlora.cli import main
from randlora.errors import ConfigError, LayerError
from randlora.methods.autolora import AutoLoraConfig, select_terms
from randlora.training import MethodConfig, PreferenceData, evaluate, train, validate
from randlora.training.config.method_table import AFTER_SEARCH
from randlora.training.inspection import inspect_run
from randlora.training.run.folder import RunFolder
from randlora.training.run.record import Record
from randlora.training.run.selection import SelectionGradient, SelectionTrainer


@pytest.fixture
def config(text_config):
    text_config.method = MethodConfig(name="autolora", r=3, options={"search_steps": 4})
    text_config.data.validation = 0.25
    text_config.optimization = replace(text_config.optimization, max_steps=4, save_steps=2)
    return text_config


@pytest.fixture(params=["autolora", "auto_randlora"])
def either(config, request):
    """A config of each of the two searches."""
    config.method.name = request.param
    return config


def with_options(config, output=None, **options):
    method = replace(config.method, options={**config.method.options, **options})
    return replace(config, method=method, output=str(output or config.output))


def tensors(output):
    return load_file(Path(output) / "adapter" / "adapter_model.safetensors")


def equal(first, second):
    first, second = tensors(first), tensors(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_searches_and_trains_anew_as_the_plain_method_with_the_ranks_found(either, tmp_path, capsys):
    config, name = either, either.method.name
    record = train(config)
    ranks = record.rank_search["ranks"]
    assert len(ranks) == 13
    assert len(set(ranks.values())) > 1
    assert record.rank_search["steps"] == 4
    if name == "autolora":
        assert record.rank_search["look_ahead"]
        assert record.rank_search["threshold"] == pytest.approx(1 / 3)
    else:
        assert record.rank_search["gains"].keys() == ranks.keys()
    saved = json.loads((Path(config.output) / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["rank_pattern"] == {f"^{re.escape(name)}": rank for name, rank in ranks.items()}
    method = MethodConfig(name=AFTER_SEARCH[name], r=3, options={"rank_pattern": saved["rank_pattern"]})
    plain = train(replace(config, method=method, output=str(tmp_path / "plain")))
    assert equal(config.output, tmp_path / "plain")
    assert record.metrics == plain.metrics
    shapes = {key: part.shape for key, part in tensors(config.output).items() if "lora_" in key}
    assert {rank for shape in shapes.values() for rank in shape} >= set(ranks.values())
    assert record.trainable_parameters == plain.trainable_parameters == sum(s.numel() for s in shapes.values())
    assert record.history == plain.history  # of the training, which began at the first step again
    assert evaluate(config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)
    assert main(["inspect", config.output]) == 0
    shown = capsys.readouterr().out
    for layer, rank in ranks.items():
        assert re.search(rf"{re.escape(layer)} +{rank} ", shown)
    assert train(config) == record  # finished
    path = Path(config.output) / "record.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["rank_search"]  # as records had none
    path.write_text(json.dumps(content), encoding="utf-8")
    assert Record.load(path.parent) == replace(record, rank_search={})


@pytest.mark.slow
def test_an_interrupted_run_goes_on_in_either_phase(either, interrupted, tmp_path):
    config = either
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
    for entry in record.rank_search.keys() - {"seconds"}:
        assert record.rank_search[entry] == whole.rank_search[entry]
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
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(trainer.validation_batch()))
        wanted = torch.autograd.grad(loss, trainer.selections)
        torch.testing.assert_close(trainer.selection_gradients, list(wanted), rtol=1e-3, atol=1e-7)
        sizes.append(max(float(part.abs().max()) for part in wanted))
        ordinary(self, args, state, control, **kwargs)

    monkeypatch.setattr(SelectionGradient, "on_pre_optimizer_step", compare)
    record = train(with_options(large_steps(config), look_ahead=False, search_steps=3))
    assert record.rank_search["look_ahead"] is False
    assert len(sizes) == 3
    assert sizes[0] == 0  # B starts at 0
    assert max(sizes) > 1e-4


@pytest.mark.slow
def test_accumulated_batches_are_one(config, sft_config, monkeypatch):
    """To the look-ahead, which alone gives the selection variables a gradient in the first step, where B is 0."""
    data = replace(sft_config.data, validation=0.25)  # its loss is of the tokens of all batches of a step together
    config = replace(sft_config, method=config.method, data=data)
    gradients, batches = [], []
    drawn = SelectionTrainer.validation_batch

    def stop(self, *_, **__):
        gradients.append(self.trainer.selection_gradients)
        raise KeyboardInterrupt

    def first(self):
        batches[:] = batches or [drawn(self)]
        return batches[0]

    monkeypatch.setattr(SelectionGradient, "on_pre_optimizer_step", stop)
    monkeypatch.setattr(SelectionTrainer, "validation_batch", first)
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


def test_several_processes_are_refused_in_a_line_and_leave_nothing(either, monkeypatch):
    config, name = either, either.method.name
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda _: 2))
    with pytest.raises(ConfigError, match=rf"^method\.name: expected {name} on one process, got {name} on 2 processes"):
        train(config)
    assert not Path(config.output).exists()


def test_a_search_for_budgets_refuses_what_has_none(config):
    wrong = [
        (MethodConfig(bases="peft"), r"^method\.bases: expected other than 'peft' where r is found by layer"),
        (MethodConfig(options={"rank_pattern": {}}), r"^method\.options\.rank_pattern: expected a known"),
        (MethodConfig(options={"num_bases": 2}), r"^method\.options\.num_bases: expected a known"),
        (MethodConfig(options={"look_ahead": True}), r"^method\.options\.look_ahead: expected a known"),
        (MethodConfig(options={"search_steps": 0}), r"^method\.options\.search_steps: expected an integer of 1"),
    ]
    for method, message in wrong:
        with pytest.raises(ConfigError, match=message) as caught:
            validate(replace(config, method=replace(method, name="auto_randlora")))
        assert "\n" not in str(caught.value)
    plain = MethodConfig(name="auto_randlora")
    section = replace(config.optimization, precision="fp16")
    others = [
        (replace(config, method=plain, data=replace(config.data, validation=None)), r"for method\.name auto_randlora"),
        (replace(config, method=plain, optimization=section), r"expected bf16 or fp32 with auto_randlora, got fp16"),
    ]
    for whole, message in others:
        with pytest.raises(ConfigError, match=message):
            validate(whole)


@pytest.mark.slow
def test_layers_of_one_basis_each_have_nothing_to_give(config):
    config.method = MethodConfig(name="auto_randlora", r=16)
    with pytest.raises(
        ConfigError, match=r"^method\.r: expected below the smaller side of a layer, got 16, with which"
    ):
        train(config)
    assert not Path(config.output).exists()


@pytest.mark.slow
def test_a_budget_as_of_a_lora_is_what_is_spread(config):
    config.method = MethodConfig(name="auto_randlora", r={"as_lora": 2}, options={"search_steps": 3})
    record = train(config)
    linear = 2 * (4 * (16 + 16) + 2 * (16 + 32)) + 16 + 16  # of two blocks and the pooler
    assert record.trainable_parameters == pytest.approx(2 * linear, rel=0.15)
    assert len(set(record.rank_search["ranks"].values())) > 1


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


def test_a_planned_search_for_budgets_is_inspected(config):
    found = inspect_run(replace(config, method=MethodConfig(name="auto_randlora", r=3)))
    assert found.title == "auto_randlora, bases structured, in its search"
    assert found.trained == 13 * 6 * (3 + 16)
    assert len(found.layers) == 13
