"""What a run adds to a Trainer, part by part: the order of the batches, AdaLoRA's penalty."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import Trainer

from randlora.training import MethodConfig, evaluate, train
from randlora.training.run import trainer
from randlora.training.run.trainer import LengthGroups, RunTrainer


def test_the_order_of_the_batches_is_that_of_seed_and_epoch():
    lengths = [number % 7 + 1 for number in range(32)]

    def order(seed, epoch):
        groups = LengthGroups(4, lengths, seed)
        groups.set_epoch(epoch)
        return list(groups)

    orders = [order(3, 0), order(3, 1), order(4, 1)]
    assert order(3, 1) == orders[1]  # whatever has been drawn before, as in a resumed run
    assert all(sorted(each) == list(range(32)) for each in orders)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.slow
def test_adaloras_penalty_counts_once_in_language_models_and_is_no_part_of_a_score(sft_config, monkeypatch):
    seen = []
    ordinary = RunTrainer.compute_loss

    def watched(self, model, inputs, *args, **kwargs):
        loss = ordinary(self, model, inputs, *args, **kwargs)
        plain = cross_entropy(
            model(inputs["input_ids"]).logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten()
        )
        seen.append((float(loss - plain), float(trainer.orthogonality(self.adalora))))
        return loss

    monkeypatch.setattr(RunTrainer, "compute_loss", watched)
    data = replace(sft_config.data, general=False)
    optimization = replace(sft_config.optimization, epochs=1, batch_size=20)
    record = train(replace(sft_config, method=MethodConfig(name="adalora", r=2), data=data, optimization=optimization))
    assert len(seen) == 2
    for added, penalty in seen:
        assert added == pytest.approx(penalty, abs=1e-5)
        assert penalty > 0
    assert evaluate(sft_config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-6)


def test_adaloras_penalty_counts_once_for_an_accumulated_batch(monkeypatch):
    monkeypatch.setattr(Trainer, "compute_loss", lambda *_args, **_kwargs: torch.tensor(1.0))
    monkeypatch.setattr(trainer, "orthogonality", lambda _: torch.tensor(2.0))
    run = RunTrainer.__new__(RunTrainer)
    run.adalora, run.current_gradient_accumulation_steps = object(), 4
    model = nn.Linear(1, 1)
    assert run.compute_loss(model.train(), {}) == 1 + 2 / 4
    assert run.compute_loss(model.eval(), {}) == 1
    run.adalora = None
    assert run.compute_loss(model.train(), {}) == 1
