"""What is chosen is chosen on the validation split: the split itself, the best checkpoint, early stopping."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from randlora.errors import ConfigError
from randlora.training import evaluate, train, validate
from randlora.training.run.trainer import RunTrainer

pytestmark = pytest.mark.slow


@pytest.fixture
def config(text_config):
    text_config.data.validation = 0.25
    return text_config


def test_test_is_scored_at_the_end_and_validation_before_and_after(config):
    record = train(config)
    assert set(record.metrics) == {
        *("validation_accuracy_before", "validation_loss_before", "validation_accuracy", "validation_loss"),
        *("test_accuracy", "test_loss", "train_loss"),
    }
    assert (record.split, record.before) == ("validation", record.metrics["validation_accuracy_before"])
    scores = evaluate(config.output, split="validation")
    assert scores["accuracy"] == record.metrics["validation_accuracy"]
    assert json.loads((Path(config.output) / "record.json").read_text())["facts"] == {
        "label_names": ["lost_card", "pay"]
    }


def test_a_run_that_left_test_alone_is_scored_when_asked_and_not_repeated(config):
    record = train(config, score_test=False)
    assert not any(name.startswith("test") for name in record.metrics)
    (weights,) = (Path(config.output) / "adapter").glob("*.safetensors")
    written = weights.stat().st_mtime_ns
    scored = train(config)
    assert scored.metrics["test_accuracy"] == evaluate(config.output)["accuracy"]
    assert scored == train(config)
    assert weights.stat().st_mtime_ns == written


def test_the_best_checkpoint_is_kept_and_the_curve_with_it(config, tmp_path):
    # At this rate the second half of the training is worse than the first.
    optimization = replace(config.optimization, learning_rate=0.3, epochs=4, eval_steps=2, save_steps=2)
    config = replace(config, optimization=replace(optimization, keep_best=True))
    record = train(config)
    curve = {entry["step"]: entry["validation_accuracy"] for entry in record.history if "validation_accuracy" in entry}
    assert len(curve) == 10  # 36 examples in batches of 8 are 5 steps an epoch
    assert record.metrics["validation_accuracy"] == max(curve.values())
    last = train(replace(config, output=str(tmp_path / "last"), optimization=optimization))
    best_step = max(curve, key=lambda step: (curve[step], -step))
    assert (record.metrics == last.metrics) == (best_step == max(curve))


def test_training_stops_when_nothing_gets_better(config):
    config.optimization = replace(config.optimization, learning_rate=1e-9, epochs=9, eval_steps=1, early_stopping=3)
    record = train(config)
    steps = [entry["step"] for entry in record.history if "validation_accuracy" in entry]
    assert steps == [1, 2, 3, 4]


@pytest.fixture
def end_behind_checkpoint(monkeypatch):
    """Train until the checkpoint of a step, or of the last, is whole, and end there."""

    def end(config, step=None):
        def save(self, *args, **kwargs):
            ordinary(self, *args, **kwargs)
            if self.state.global_step == (self.state.max_steps if step is None else step):
                raise KeyboardInterrupt

        ordinary = RunTrainer._save_checkpoint
        with monkeypatch.context() as patch:
            patch.setattr(RunTrainer, "_save_checkpoint", save)
            with pytest.raises(KeyboardInterrupt):
                train(config)

    return end


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_resumed_run_is_not_patient_anew(config, tmp_path, end_behind_checkpoint, step):
    config.optimization = replace(config.optimization, learning_rate=1e-9, epochs=9, save_steps=1, early_stopping=3)
    whole = train(replace(config, output=str(tmp_path / "whole")))

    end_behind_checkpoint(config, step)
    record = train(config)
    assert [entry["step"] for entry in record.history] == [entry["step"] for entry in whole.history]
    assert record.metrics == whole.metrics


@pytest.mark.parametrize("length", [{"max_steps": 3}, {"epochs": 1.5}])
def test_a_run_that_was_ended_behind_its_last_checkpoint_takes_no_step_more(
    config, tmp_path, end_behind_checkpoint, length
):
    config.optimization = replace(config.optimization, scheduler="constant", **length)
    whole = train(replace(config, output=str(tmp_path / "whole")))

    end_behind_checkpoint(config)
    assert train(config).metrics == whole.metrics


def test_a_resumed_selection_ends_with_the_same_bits(config, tmp_path, interrupted):
    config.optimization = replace(config.optimization, epochs=2, eval_steps=2, save_steps=2, keep_best=True)
    whole = train(replace(config, output=str(tmp_path / "whole")))
    interrupted(config, 5)
    assert train(config).metrics == whole.metrics
    folders = (tmp_path / "whole", Path(config.output))
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in folders)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("key", "value"), [("keep_best", True), ("early_stopping", 2), ("eval_steps", 5)])
def test_choosing_needs_a_validation_split(text_config, key, value):
    text_config.optimization = replace(text_config.optimization, **{key: value})
    with pytest.raises(ConfigError, match=rf"data\.validation: expected one, for optimization\.{key}, got none"):
        validate(text_config)


def test_the_best_scored_must_be_one_that_is_saved(config):
    config.optimization = replace(config.optimization, keep_best=True, eval_steps=3, save_steps=4)
    with pytest.raises(ConfigError, match=r"optimization\.save_steps: expected a multiple of eval_steps, 3"):
        validate(config)


def test_without_a_validation_split_a_run_that_leaves_test_alone_scores_nothing(text_config):
    text_config.optimization.max_steps = 1
    record = train(text_config, score_test=False)
    assert set(record.metrics) == {"train_loss"}
