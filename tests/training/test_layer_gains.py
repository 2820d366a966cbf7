"""What each layer gains on validation data, and how the numbers of a RandLoRA are spread by it."""

import math

import peft
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from randlora import RandLoraConfig
from randlora.methods.auto_randlora import AutoRandLoraConfig, spread_numbers
from randlora.training.run.layer_gains import GainTrainer
from randlora.training.run.progress import resumed
from randlora.training.run.trainer import run_trainer

SIZE = 32


class TwoLayers(nn.Module):
    """Two layers side by side, whose weights are to change by given matrices; the loss says how far they are."""

    def __init__(self, *changes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(SIZE, SIZE, bias=False) for _ in changes)
        self.wanted = [layer.weight.detach() + change for layer, change in zip(self.layers, changes, strict=True)]

    def forward(self, x):
        outputs = [(layer(x), x @ wanted.T) for layer, wanted in zip(self.layers, self.wanted, strict=True)]
        return {"loss": sum((output - right).square().mean() for output, right in outputs)}


def searched(tmp_path, *changes, r=8, steps=20, rate=1e-2):
    """A finished search, and the fall of the validation loss in it."""
    config = AutoRandLoraConfig(r=r, target_modules=["0", "1"])
    model = peft.get_peft_model(TwoLayers(*changes), config)
    seen, held_out = torch.randn(2, 256, SIZE)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=256,
        max_steps=steps,
        learning_rate=rate,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    data = {"train_dataset": [{"x": row} for row in seen], "eval_dataset": [{"x": row} for row in held_out]}
    trainer = run_trainer(Trainer, GainTrainer)(model=model, args=arguments, **data)
    trainer.begin(resumed(None, 1), is_head=lambda _: False)
    trainer.begin_search()
    before = float(model(held_out)["loss"])
    trainer.train()
    return trainer, before - float(model(held_out)["loss"])


def trained(layers, ranks):
    """Trained numbers of square layers of SIZE."""
    config = RandLoraConfig()
    return sum(config.trained_numbers((SIZE, SIZE), ranks[name]) for name in layers)


def test_the_gains_of_all_layers_are_the_fall_of_the_loss(tmp_path):
    torch.manual_seed(0)
    trainer, fall = searched(tmp_path, *torch.randn(2, SIZE, SIZE) / SIZE**0.5, steps=40, rate=1e-3)
    gains = trainer.found()["gains"]
    assert set(gains) == {"layers.0", "layers.1"}
    assert fall > 0.05
    assert sum(gains.values()) == pytest.approx(fall, rel=0.05)


def test_a_layer_that_is_to_change_gets_the_numbers_of_one_that_is_not(tmp_path):
    torch.manual_seed(0)
    change = torch.randn(SIZE, SIZE) / SIZE**0.5
    found = searched(tmp_path, torch.zeros_like(change), change)[0].found()
    assert abs(found["gains"]["layers.0"]) < 0.01 * found["gains"]["layers.1"]
    ranks = found["ranks"]
    assert ranks["layers.0"] == SIZE  # one basis
    assert ranks["layers.1"] < 8
    assert trained(ranks, ranks) == pytest.approx(trained(ranks, dict.fromkeys(ranks, 8)), rel=0.1)


def test_layers_that_gain_alike_keep_their_r(tmp_path):
    torch.manual_seed(0)
    trainer, _ = searched(tmp_path, *torch.randn(2, SIZE, SIZE) / SIZE**0.5)
    gains = dict.fromkeys(trainer.layers, 0.5)
    assert spread_numbers(trainer.options, trainer.layers, gains) == {"layers.0": 8, "layers.1": 8}


@pytest.mark.parametrize("rank_fraction", [1.0, 0.5])
def test_numbers_are_spread_over_layers_of_any_shape(rank_fraction):
    net = nn.ModuleDict({"wide": nn.Linear(192, 64), "square": nn.Linear(128, 128), "small": nn.Linear(96, 10)})
    config = AutoRandLoraConfig(r=4, rank_fraction=rank_fraction, target_modules=list(net))
    model = peft.get_peft_model(net, config)
    layers = {name: [model.base_model.model[name]] for name in net}
    shapes = {name: (layer.out_features, layer.in_features) for name, (layer,) in layers.items()}
    plain = sum(config.trained_numbers(shape, 4) for shape in shapes.values())
    parts = []
    for gains in ([1.0, 3.0, 0.0], [3.0, 1.0, 0.01], [0.5, 0.2, -4.0]):
        ranks = spread_numbers(config, layers, dict(zip(net, gains, strict=True)))
        found = {name: config.trained_numbers(shapes[name], r) for name, r in ranks.items()}
        assert sum(found.values()) == pytest.approx(plain, rel=0.03)
        assert all(1 <= r <= min(shapes[name]) for name, r in ranks.items())
        parts.append(found)
    assert parts[0]["square"] > 2 * parts[0]["wide"]
    assert parts[1]["wide"] > parts[1]["square"]
    assert parts[2]["small"] == config.trained_numbers(shapes["small"], 10)
    worse = dict.fromkeys(net, -1.0)
    assert spread_numbers(config, layers, worse) == dict.fromkeys(net, 4)  # nothing is known


def test_matrices_that_share_an_r_share_a_part():
    net = nn.ModuleDict({"attention": nn.MultiheadAttention(SIZE, 2), "linear": nn.Linear(SIZE, SIZE)})
    model = peft.get_peft_model(net, AutoRandLoraConfig(r=8, target_modules=list(net)))
    attention = model.base_model.model["attention"]
    layers = {"attention": list(attention.updates.values()), "linear": [model.base_model.model["linear"]]}
    assert sum(math.prod(layer.stack) for layer in layers["attention"]) == 4
    ranks = spread_numbers(model.active_peft_config, layers, {"attention": 4.0, "linear": 1.0})
    assert ranks == {"attention": 8, "linear": 8}
