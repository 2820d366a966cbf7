"""TRL's DPOTrainer, on pairs that are tokens already, with the rewards among its scores."""

from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from trl.trainer.dpo_trainer import DPOTrainer

from randlora.formats.checkpoint import WEIGHTS_FILE, check_filled
from randlora.tasks.language.exact_numbers import ExactNumbers

REFERENCE = "ref"
"""TRL's name of the adapter that keeps the start: a copy of the trained one, and not of the model."""


class DpoTrainer(ExactNumbers, DPOTrainer):
    """TRL's DPOTrainer, whose scores are loss, reward accuracy (in percent) and reward margin."""

    def __init__(self, model: Any, *, start: str | None = None, **rest: Any) -> None:
        """As TRL's.

        Args:
            model: The model to train, or a trained one to score.
            start: The adapter folder that training started from. None means the base model itself, which is then the
                model without its adapter.
            rest: Passed on.
        """
        super().__init__(model, **rest)
        if isinstance(model, PeftModel) and start is None:
            model.delete_adapter(REFERENCE)
        elif isinstance(model, PeftModel):
            tensors = load_file(Path(str(start)) / WEIGHTS_FILE)
            set_peft_model_state_dict(model, tensors, adapter_name=REFERENCE)
            check_filled(model, REFERENCE, tensors, str(start))

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Score pairs; TRL logs the rewards without returning them.

        Args:
            eval_dataset: The data; None takes those the trainer was made with.
            ignore_keys: Passed on.
            metric_key_prefix: What the names of the scores begin with.
        """
        found: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        logged = self.state.log_history[-1]
        found[f"{metric_key_prefix}_reward_accuracy"] = 100 * logged["eval_rewards/accuracies"]
        found[f"{metric_key_prefix}_reward_margin"] = logged["eval_rewards/margins"]
        return found
