"""PromptSRC's average over the epochs: a sum that grows with each, and takes the prompts' place at the end."""

from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from randlora.methods.prompts.promptsrc import PromptSRCPrompts


class EpochAverage(TrainerCallback):
    """Tells the prompts when an epoch is over, and when the training is.

    Args:
        prompts: The prompts.
    """

    def __init__(self, prompts: PromptSRCPrompts) -> None:
        self.prompts = prompts

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the prompts into the sum after an epoch's last step; a checkpoint of that step has to hold the sum."""
        del args, control
        last = state.global_step == state.max_steps
        if last or (state.epoch is not None and float(state.epoch).is_integer()):
            self.prompts.add_epoch(state.global_step / state.max_steps)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Put the average in the prompts' place."""
        del args, state, control
        self.prompts.take_average()


def find_averaged(model: nn.Module) -> PromptSRCPrompts | None:
    """Prompts in a model that are averaged over the epochs, or None."""
    return next((part for part in model.modules() if isinstance(part, PromptSRCPrompts)), None)
