"""What a run adds to a Trainer, part by part: the order of the batches, AdaLoRA's penalty."""

import torch
from torch import nn
from transformers import Trainer

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
