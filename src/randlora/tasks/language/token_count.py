"""TRL's count of the tokens that were trained on, over interruptions: TRL itself begins it again."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TokenCount(TrainerCallback):
    """Gives a resumed trainer the count that it had logged last, which checkpoints are preceded by.

    Args:
        trainer: One of TRL's.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go on from the last count in the checkpoint's log."""
        del args, control
        logged = [entry["num_tokens"] for entry in state.log_history if "num_tokens" in entry]
        self.trainer._total_train_tokens = int(logged[-1]) if logged else 0
