"""TRL's SFTTrainer, with losses that count every token once and trained numbers that stay as they are."""

import math
import time
from typing import Any

import torch
from torch import Tensor
from trl.trainer.sft_trainer import SFTTrainer


class SftTrainer(SFTTrainer):
    """TRL's SFTTrainer, in three things otherwise.

    A score is the mean over the tokens that are learned, not over batches, so it does not depend on the batch size.
    Trained numbers keep their dtype on a quantized base (TRL rounds them to bfloat16, in which small steps are lost).
    An evaluation needs no training data.
    """

    control: Any

    def __init__(
        self, model: Any, args: Any, *, train_dataset: Any = None, eval_dataset: Any = None, **rest: Any
    ) -> None:
        trained = {name: part.detach().clone() for name, part in model.named_parameters() if part.requires_grad}
        data = eval_dataset if train_dataset is None else train_dataset
        super().__init__(model, args, train_dataset=data, eval_dataset=eval_dataset, **rest)
        for name, part in self.model.named_parameters():
            if name in trained:
                part.data = trained[name].to(part.device)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None beside a checkpoint, which is not for sharing."""

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss, perplexity and the share of tokens that are the likeliest, over all learned tokens of a data set.

        Args:
            eval_dataset: The data; None takes those the trainer was made with.
            ignore_keys: Of no use here.
            metric_key_prefix: What the names of the scores begin with.
        """
        del ignore_keys
        start = time.perf_counter()
        loader = self.get_eval_dataloader(eval_dataset)
        model = self._wrap_model(self.model, training=False)
        model.eval()
        sums = torch.zeros(3, dtype=torch.float64)  # loss, tokens, likeliest
        for batch in loader:
            sums += self._sums(model, self._prepare_inputs(batch)).cpu()
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        loss, tokens, likeliest = self.accelerator.reduce(sums.to(self.args.device, torch.float64)).tolist()
        mean = loss / max(tokens, 1)
        found = {
            f"{metric_key_prefix}_loss": mean,
            f"{metric_key_prefix}_perplexity": math.exp(min(mean, 700)),
            f"{metric_key_prefix}_token_accuracy": 100 * likeliest / max(tokens, 1),
            f"{metric_key_prefix}_runtime": time.perf_counter() - start,
        }
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _sums(self, model: Any, batch: dict[str, Any]) -> Tensor:
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**batch, use_cache=False, fused_lm_head=True)
        parts = (-outputs.log_probs.double().sum(), outputs.label_mask.sum(), outputs.is_top1.sum())
        return torch.stack([part.double() for part in parts])
