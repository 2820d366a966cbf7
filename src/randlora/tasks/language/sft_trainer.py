"""TRL's SFTTrainer, with scores that count every token once."""

import math
import time
from typing import Any

import torch
from trl.trainer.sft_trainer import SFTTrainer

from randlora.tasks.language.exact_numbers import ExactNumbers
from randlora.tasks.language.scoring import token_sums
from randlora.tasks.language.shared_batches import shared_batches


class SftTrainer(ExactNumbers, SFTTrainer):
    """TRL's SFTTrainer, but a score is the mean over tokens and not over batches, so no batch size changes it."""

    control: Any

    @torch.no_grad()
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
        sums = torch.zeros(3, dtype=torch.float64)
        for model, batch, share in shared_batches(self, eval_dataset):
            sums += share.weight * token_sums(model, batch).cpu()
        loss, tokens, likeliest = self.accelerator.reduce(sums.to(self.args.device)).tolist()
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
