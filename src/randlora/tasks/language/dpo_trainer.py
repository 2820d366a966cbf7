"""TRL's DPOTrainer, on pairs that are tokens already, with the rewards among its scores."""

import time
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from trl.trainer.dpo_trainer import DPOTrainer

from randlora.formats.checkpoint import WEIGHTS_FILE, check_filled
from randlora.tasks.language.exact_numbers import ExactNumbers
from randlora.tasks.language.shared_batches import shared_batches

REFERENCE = "ref"
"""TRL's name of the adapter that keeps the start: a copy of the trained one, and not of the model."""


def _is_adapters(name: str, part: nn.Module) -> bool:
    """Whether a module is the dropout of the adapter that is trained."""
    return isinstance(part, nn.Dropout) and name.endswith(".default")


class DpoTrainer(ExactNumbers, DPOTrainer):
    """TRL's DPOTrainer, but scores are means over pairs and not over batches, with the rewards among them."""

    control: Any
    _metrics: dict[str, dict[str, list[float]]]
    _usual_rows: float | None = None
    """Mean number of rows in the batches that make up a step; each counts as the share that it has of all."""

    def __init__(self, model: Any, *, start: str | None = None, **rest: Any) -> None:
        """As TRL's.

        Args:
            model: The model to train, or a trained one to score.
            start: The adapter folder that training started from. None means the base model itself, which is then the
                model without its adapter.
            rest: Passed on.
        """
        # TRL turns every dropout off. The adapter's was asked for; what the answers are held to has none.
        asked = {name: part.p for name, part in model.named_modules() if _is_adapters(name, part)}
        super().__init__(model, **rest)
        for name, share in asked.items():
            model.get_submodule(name).p = share
        if isinstance(model, PeftModel) and start is None:
            model.delete_adapter(REFERENCE)
        elif isinstance(model, PeftModel):
            tensors = load_file(Path(str(start)) / WEIGHTS_FILE)
            set_peft_model_state_dict(model, tensors, adapter_name=REFERENCE)
            check_filled(model, REFERENCE, tensors, str(start))

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """TRL's; of a step of several batches the last may have fewer pairs."""
        batches, count = super().get_batch_samples(*args, **kwargs)
        if batches:
            self._usual_rows = sum(len(batch["input_ids"]) for batch in batches) / len(batches)
        return batches, count

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **rest: Any) -> Any:
        """TRL's, a mean over pairs; in training such that a step is the mean over all of its pairs."""
        found = super().compute_loss(model, inputs, return_outputs, **rest)
        if not model.training or self._usual_rows is None:
            return found
        weight = len(inputs["input_ids"]) / self._usual_rows
        return (found[0] * weight, found[1]) if return_outputs else found * weight

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss, reward accuracy (in percent) and reward margin; what else TRL measures is logged.

        Args:
            eval_dataset: The data; None takes those the trainer was made with.
            ignore_keys: Of no use here.
            metric_key_prefix: What the names of the scores begin with.
        """
        del ignore_keys
        start, pairs = time.perf_counter(), 0.0
        sums: dict[str, float] = {}
        measured = self._metrics["eval"]
        for model, batch, share in shared_batches(self, eval_dataset):
            loss = self.compute_loss(model, batch)
            values = {"loss": self.accelerator.reduce(loss.detach(), "mean").item()}
            values |= {name: found[-1] for name, found in measured.items()}  # of all processes together
            own = share.weight * len(share.rows)  # pairs, as many in every process
            sums = {name: sums.get(name, 0.0) + own * value for name, value in values.items()}
            pairs += own
        means = {name: value / max(pairs, 1) for name, value in sums.items()}
        measured.update({name: [value] for name, value in means.items() if name != "loss"})
        found = {
            f"{metric_key_prefix}_loss": means["loss"],
            f"{metric_key_prefix}_reward_accuracy": 100 * means["rewards/accuracies"],
            f"{metric_key_prefix}_reward_margin": means["rewards/margins"],
            f"{metric_key_prefix}_runtime": time.perf_counter() - start,
        }
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found
