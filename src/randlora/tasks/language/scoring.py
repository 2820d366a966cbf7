"""Loss and likeliest tokens of a language model, summed over every token that is learned."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling


def token_sums(model: Any, batch: dict[str, Any]) -> Tensor:
    """Sums over a batch.

    Args:
        model: A causal language model that TRL has given its fused head.
        batch: Token ids, and labels of those that are learned.

    Returns:
        Loss, number of learned tokens, number of those that are the likeliest; (3,) in float64.
    """
    outputs = model(**batch, use_cache=False, fused_lm_head=True)
    likeliest = outputs.label_mask if outputs.is_top1 is None else outputs.is_top1
    parts = (-outputs.log_probs.double().sum(), outputs.label_mask.sum(), likeliest.sum())
    return torch.stack([part.double() for part in parts])


@torch.no_grad()
def mean_loss(trainer: Any, rows: Iterable[dict[str, Any]]) -> float:
    """The loss of a trainer's model on texts, by token; every process computes all of it.

    Args:
        trainer: One of TRL's.
        rows: `input_ids` and `labels` of each text.
    """
    collate = DataCollatorForLanguageModeling(pad_token_id=trainer.processing_class.pad_token_id)
    model = trainer.accelerator.unwrap_model(trainer.model) if not trainer.is_fsdp_enabled else trainer.model
    training = model.training
    model.eval()
    total = torch.zeros(3, dtype=torch.float64)
    try:
        texts: Any = list(rows)
        for batch in DataLoader(texts, batch_size=trainer.args.per_device_eval_batch_size, collate_fn=collate):
            with trainer.compute_loss_context_manager():
                total += token_sums(model, trainer._prepare_inputs(batch)).cpu()
    finally:
        model.train(training)
    return float(total[0] / total[1])
