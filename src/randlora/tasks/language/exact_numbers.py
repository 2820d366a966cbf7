"""What TRL's trainers do to a model that a run here must not have done."""

from typing import Any

from randlora.tasks.language.token_count import TokenCount


class ExactNumbers:
    """Keeps the trained numbers in their dtype: on a quantized base TRL rounds them to bfloat16, where steps are lost.

    To be mixed in before one of TRL's trainers. An evaluation needs no training data then, and no model card is written
    beside a checkpoint, which is not for sharing.
    """

    def __init__(
        self, model: Any, args: Any, *, train_dataset: Any = None, eval_dataset: Any = None, **rest: Any
    ) -> None:
        trained = {name: part.data for name, part in model.named_parameters() if part.requires_grad}
        data = eval_dataset if train_dataset is None else train_dataset
        made: Any = super()
        made.__init__(model=model, args=args, train_dataset=data, eval_dataset=eval_dataset, **rest)
        made.add_callback(TokenCount(self))
        for name, part in model.named_parameters():
            if name in trained and part.dtype != trained[name].dtype:
                part.data = trained[name].to(part.device)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None."""
