"""Whole runs on a device that is not the CPU, an emulated one: the record and the adapter are those of the CPU."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import TrainingArguments

from emulated.device import GPU, emulated_device
from randlora.training import MethodConfig, Record, evaluate, train
from randlora.training.run import arguments
from randlora.training.run.trainer import RunTrainer


@pytest.fixture
def train_on_gpu(monkeypatch):
    """Have the Trainer take the emulated device for one that PyTorch found; where it trained."""
    step, seen = RunTrainer.training_step, set()

    def watched(self, model, *given):
        seen.update(part.device for part in model.parameters())
        return step(self, model, *given)

    monkeypatch.setattr(RunTrainer, "training_step", watched)
    found, own = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True)), TrainingArguments.device
    monkeypatch.setattr(arguments, "torch", found)
    monkeypatch.setattr(TrainingArguments, "device", property(lambda self: own.fget(self) and GPU))
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", str(GPU))
    AcceleratorState._reset_state(reset_partial_state=True)
    with emulated_device():
        yield seen
    AcceleratorState._reset_state(reset_partial_state=True)


def scores(folder):
    return {name: value for name, value in Record.load(Path(folder)).metrics.items() if "seconds" not in name}


def trained(folder):
    (weights,) = (Path(folder) / "adapter").glob("*.safetensors")
    return load_file(weights)


@pytest.mark.parametrize(
    ("task", "method"),
    [
        ("text_config", "randlora"),
        ("text_config", "adalora"),
        ("text_config", "autolora"),
        ("image_config", "hybrid"),
        ("sft_config", "randlora"),
    ],
)
def test_a_run_is_the_cpus(request, task, method):
    config = request.getfixturevalue(task)
    config.method = MethodConfig(name=method, r=2 if method == "autolora" else None)
    config.data.validation = 0.3 if method == "autolora" else None
    config.optimization.epochs, config.optimization.precision = 1, "fp32"
    there = replace(config, output=f"{config.output}-there")
    train(config)
    devices = request.getfixturevalue("train_on_gpu")
    train(there)
    assert devices == {GPU}
    evaluated = evaluate(there.output)
    assert all(torch.isfinite(torch.tensor(value)) for value in evaluated.values())
    assert scores(there.output) == pytest.approx(scores(config.output), rel=1e-4)
    for name, tensor in trained(config.output).items():
        # AdamW's step does not shrink with the gradient: an entry whose gradient is rounding goes either way.
        assert (trained(there.output)[name] - tensor).norm() <= 1e-4 * tensor.norm(), name
