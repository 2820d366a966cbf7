"""Language models: direct preference optimization from a config to a run's folder."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from randlora.errors import ConfigError, DataError
from randlora.training import MethodConfig, PreferenceData, evaluate, train
from randlora.training.run.trainer import RunTrainer

pytestmark = pytest.mark.slow


@pytest.fixture
def config(sft_config, tmp_path):
    """The better answer repeats the word, the worse one does not."""
    generator = np.random.default_rng(0)
    for name, count in (("pairs", 24), ("held", 8)):
        rows = []
        for _ in range(count):
            word = "".join(generator.choice(list("abcd"), size=3))
            pair = {"prompt": word, "chosen": f" {word}", "rejected": " zzz"}
            rows.append(json.dumps(pair))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    data = PreferenceData(
        train=str(tmp_path / "pairs.jsonl"), test=str(tmp_path / "held.jsonl"), max_length=32, beta=0.5
    )
    return replace(sft_config, task="preference", data=data, output=str(tmp_path / "dpo"))


def tensors(folder):
    (path,) = (Path(folder) / "adapter").glob("*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("method", ["randlora", "lora", "full"])
def test_a_run_begins_at_its_start_and_learns_what_is_better(config, method):
    config.method.name = method
    record = train(config)
    assert record.metrics["test_loss_before"] == pytest.approx(0.6931, abs=1e-4)
    assert record.metrics["test_reward_margin_before"] == pytest.approx(0, abs=1e-5)
    assert record.metrics["test_loss"] < 0.6
    assert record.metrics["test_reward_margin"] > 0.1
    assert record.metrics["test_reward_accuracy"] == 100
    assert not any("ref" in name for name in tensors(config.output))


def test_the_finished_run_is_evaluated_against_the_same_start(config):
    record = train(config)
    assert evaluate(config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)
    # Every pair counts once: of batches of 3, 3 and 2 pairs too.
    by_three = evaluate(config.output, ["--optimization.eval_batch_size", "3"])
    expected = {
        name.removeprefix("test_"): value for name, value in record.metrics.items() if name != "test_loss_before"
    }
    assert by_three == pytest.approx({name: expected[name] for name in by_three}, rel=1e-5)


@pytest.mark.parametrize("method", ["randlora", "lora"])
def test_a_run_goes_on_from_another_and_is_held_to_it(config, sft_config, method, tmp_path):
    sft_config.method.name = method
    first = train(sft_config)
    config.method = MethodConfig()
    config = replace(config, start_from=sft_config.output)
    record = train(config)
    assert record.method == method
    assert record.metrics["test_loss_before"] == pytest.approx(0.6931, abs=1e-4)
    assert record.metrics["general_loss_before"] == pytest.approx(first.metrics["general_loss"], rel=1e-5)
    assert record.metrics["test_loss"] < 0.6
    assert evaluate(config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)
    with pytest.raises(ConfigError, match=r"method: expected none, or that of"):
        train(replace(config, method=MethodConfig(r=3), output=str(tmp_path / "other")))
    with pytest.raises(ConfigError, match=r"start_from: expected the folder of a finished run"):
        train(replace(config, start_from=str(tmp_path / "none"), output=str(tmp_path / "other")))


def test_from_an_sft_run_the_loss_begins_at_ln_2_and_the_margin_grows(config, sft_config):
    train(sft_config)
    config.optimization = replace(config.optimization, save_steps=1, epochs=4)
    record = train(replace(config, start_from=sft_config.output, method=MethodConfig()))
    steps = [entry for entry in record.history if "loss" in entry]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert steps[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    margins = [entry["rewards/margins"] for entry in steps]
    third = len(margins) // 3
    assert 0.1 < np.mean(margins[third:-third]) < np.mean(margins[-third:])
    assert steps[-1]["loss"] < 0.6


@pytest.mark.parametrize("method", ["randlora", "lora", "hybrid"])
def test_the_adapters_dropout_is_that_of_the_config_and_its_starts_has_none(config, sft_config, method, monkeypatch):
    seen = []

    def note(self, *args, **kwargs):
        seen.extend((name, part.p) for name, part in self.model.named_modules() if isinstance(part, nn.Dropout))
        return ordinary(self, *args, **kwargs)

    sft_config.method.name, sft_config.method.dropout = method, 0.25
    train(sft_config)
    config = replace(config, start_from=sft_config.output, method=MethodConfig())
    ordinary = RunTrainer.training_step
    monkeypatch.setattr(RunTrainer, "training_step", note)
    train(config)
    assert {share for name, share in seen if name.endswith(".default")} == {0.25}
    assert {share for name, share in seen if not name.endswith(".default")} <= {0}


def test_every_loss_is_one_of_its_own(config, tmp_path):
    (kinds,) = (entry.type for entry in fields(PreferenceData) if entry.name == "loss_type")
    config.optimization.max_steps = 1
    found = {}
    for kind in get_args(kinds):
        data = replace(config.data, loss_type=kind)
        record = train(replace(config, data=data, output=str(tmp_path / kind)))
        found[kind] = round(record.metrics["test_loss"], 4)
    assert len(set(found.values())) == len(found)


def test_batches_of_a_step_count_by_their_pairs(config, tmp_path):
    pairs = Path(config.data.train)
    pairs.write_text("\n".join(pairs.read_text(encoding="utf-8").splitlines()[:7]), encoding="utf-8")
    plain = replace(config.optimization, optimizer="sgd", epochs=1, warmup_ratio=0, max_grad_norm=0)
    whole = replace(config, optimization=replace(plain, batch_size=8), output=str(tmp_path / "whole"))
    parts = replace(plain, batch_size=4, gradient_accumulation_steps=2)  # of 4 and 3 pairs
    records = [train(whole), train(replace(config, optimization=parts, output=str(tmp_path / "parts")))]
    assert records[0].metrics["train_loss"] == pytest.approx(records[1].metrics["train_loss"], rel=1e-5)
    first, second = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-6)


def test_data_of_the_other_task_are_refused(config, sft_config):
    with pytest.raises(DataError, match=r"data\.train: expected another form of data, got messages .*task: sft"):
        train(replace(config, data=replace(config.data, train=sft_config.data.train)))
    with pytest.raises(DataError, match=r"got preference .*task: preference"):
        train(replace(sft_config, data=replace(sft_config.data, train=config.data.train)))
