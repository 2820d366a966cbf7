"""What searches for the r of each layer have in common: a Trainer that asks a validation batch in every step."""

from abc import abstractmethod
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from randlora.training.run.trainer import RunTrainer


class SearchTrainer(RunTrainer):
    """A run's Trainer that trains on `train_dataset` and finds out about layers on `eval_dataset`."""

    current_gradient_accumulation_steps: int

    def begin_search(self) -> None:
        """Find in the model what is trained; to be called once, after `begin`."""
        self.adapted = next(part for part in self.model.modules() if isinstance(part, PeftModel))
        self.options: Any = self.adapted.active_peft_config
        self.trained: list[Tensor] = [part for part in self.model.parameters() if part.requires_grad]

    @abstractmethod
    def found(self) -> dict[str, Any]:
        """What the record says: `ranks`, the r of each layer by its name in the base model, and how it was found."""

    def gradients(self, model: nn.Module, batches: list[Any], items: Any = None) -> list[Tensor]:
        """Gradients of the loss on some batches, by the Trainer's own step; those that are there are left alone.

        Args:
            model: The model.
            batches: Accumulated as those of one step are.
            items: The Trainer's number of items in them.

        Returns:
            One for each of `trained`.
        """
        kept, passes = [part.grad for part in self.trained], self.current_gradient_accumulation_steps
        self.model.zero_grad()
        self.current_gradient_accumulation_steps = len(batches)
        # All passes of a step drop the same inputs: else a finite difference would be one of dropout.
        with torch.random.fork_rng([self.args.device] if self.args.device.type == "cuda" else []):
            for batch in batches:
                super().training_step(model, batch, items)
        found = [torch.zeros_like(part) if part.grad is None else part.grad for part in self.trained]
        self.current_gradient_accumulation_steps = passes
        for part, gradient in zip(self.trained, kept, strict=True):
            part.grad = gradient
        return found

    def validation_batch(self) -> Any:
        """A batch of the validation split in an order of seed and step alone, which a resumed run finds again."""
        rows: Any = self.eval_dataset
        size = min(self.args.per_device_train_batch_size, len(rows))
        epoch, place = divmod(self.state.global_step, len(rows) // size)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.args.seed + epoch))
        chosen = order[place * size : (place + 1) * size].tolist()
        collate = self._get_collator_with_removed_columns(self.data_collator, description="validation")
        return collate([rows[index] for index in chosen])
