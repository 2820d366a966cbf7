"""RandLoRA's search: how much of the fall of the validation loss is owed to each layer.

A step Δθ of all trained numbers changes the validation loss by Σ_l ⟨∇_l L_val, Δθ_l⟩ to first order: a sum over the
layers. What it comes to over the steps of a training is what each layer has gained. Factors on terms or layers that
learn on the validation loss, as AutoLoRA's selection variables do, do not tell: γ makes up for any (docs/log.md).
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from randlora.errors import ConfigError
from randlora.methods.auto_randlora import spread_numbers
from randlora.methods.randlora import RandLoraLayer
from randlora.methods.randlora.weighted_sum import places
from randlora.training.run.search_trainer import SearchTrainer


class GainTrainer(SearchTrainer):
    """Trains as a run does, and notes in `progress.gains` what each layer's steps do to the validation loss."""

    def begin_search(self) -> None:
        """See `SearchTrainer`.

        Raises:
            ConfigError: Every layer has one basis, and so nothing to give to another.
        """
        super().begin_search()
        self.layers: dict[str, list[RandLoraLayer]] = {}
        self.owners: dict[int, str] = {}
        for name, _, layer in places(self.adapted.base_model.model):
            self.layers.setdefault(name, []).append(layer)
            self.owners |= {id(part): name for part in layer.parameters()}
        if all(layer.num_bases[name] == 1 for layers in self.layers.values() for layer in layers for name in layer.r):
            expected = "below the smaller side of a layer"
            raise ConfigError("method.r", expected=expected, got=f"{self.options.r}, with which each has one basis")
        self.progress.gains = dict.fromkeys(self.layers, 0.0) | self.progress.gains
        self.slopes: list[Tensor] = []
        self.before: list[Tensor] = []
        self.add_callback(StepGain(self))

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """The Trainer's; with the last forward pass of a step, the gradient on a validation batch as well."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self.slopes = self.gradients(model, [self.validation_batch()])
            self.before = [part.detach().clone() for part in self.trained]
        return loss

    @torch.no_grad()
    def add_gains(self) -> None:
        """Take a step that has been made into account."""
        for part, slope, before in zip(self.trained, self.slopes, self.before, strict=True):
            name = self.owners.get(id(part))  # None of a head
            if name is not None:
                self.progress.gains[name] -= float((slope * (part - before)).sum())

    def found(self) -> dict[str, Any]:
        """See `SearchTrainer`."""
        gains = self.progress.gains
        return {"ranks": spread_numbers(self.options, self.layers, gains), "gains": gains}


class StepGain(TrainerCallback):
    """Tells the search when the optimizer has stepped."""

    def __init__(self, trainer: GainTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """The optimizer has stepped."""
        self.trainer.add_gains()
