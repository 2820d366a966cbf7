"""What AdaLoRA needs of the training loop: its rank budget after every step, and its penalty in the loss.

Zhang et al., "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", ICLR 2023.
"""

from typing import Any

import torch
from peft import AdaLoraModel
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from randlora.errors import ConfigError


class RankBudget(TrainerCallback):
    """Tells PEFT's AdaLoRA the number of steps, and has it spend its ranks anew after each.

    The importance of the ranks is a running mean that no checkpoint holds: a resumed run begins it again.

    Args:
        tuner: PEFT's AdaLoRA in the trained model.
    """

    def __init__(self, tuner: AdaLoraModel) -> None:
        self.tuner = tuner

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Fix the schedule.

        Raises:
            ConfigError: `tinit` and `tfinal` leave no step to weigh ranks in before they are cut.
        """
        del args, control
        config = self.tuner.peft_config[self.tuner.trainable_adapter_name]
        if config.tinit + config.tfinal > state.max_steps - 2:
            raise ConfigError(
                "method.options",
                expected=f"tinit and tfinal that leave two steps or more of {state.max_steps}",
                got=f"{config.tinit} and {config.tfinal}",
            )
        self.tuner.rankallocator.set_total_step(state.max_steps)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Spend the budget, while the gradients are there; this step is not yet counted."""
        del args, control
        self.tuner.update_and_allocate(state.global_step + 1)


def find_adalora(model: nn.Module) -> AdaLoraModel | None:
    """PEFT's AdaLoRA in a model, if it is there to be trained."""
    tuners = (part for part in model.modules() if isinstance(part, AdaLoraModel))
    return next((tuner for tuner in tuners if hasattr(tuner, "rankallocator")), None)


def without_own_penalty(model: nn.Module) -> None:
    """Have PEFT's AdaLoRA give the loss of a language model as it is.

    PEFT adds its penalty to whatever loss the model itself computes: a second time in training, also in scores, and of
    a finished run, which has no adapter to be trained, it does not know the penalty's weight.

    Args:
        model: Any model; it is changed in place.
    """
    for tuner in model.modules():
        if isinstance(tuner, AdaLoraModel):
            tuner.forward = tuner.model.forward


def orthogonality(tuner: AdaLoraModel) -> Tensor:
    """AdaLoRA's penalty: orth_reg_weight times the mean of ‖P·Pᵀ - 1‖ and ‖Qᵀ·Q - 1‖ over all layers (eq. 4).

    The Trainer adds it to the loss of any task; see `without_own_penalty`.
    """
    name = tuner.trainable_adapter_name
    grams = []
    for layer in tuner.modules():
        if isinstance(layer, tuner.tuner_layer_cls):
            A, B = layer.lora_A[name], layer.lora_B[name]
            grams += [A @ A.T, B.T @ B]
    norms = [torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
    return tuner.peft_config[name].orth_reg_weight * torch.stack(norms).mean()
