"""DePT's head: what is of use for the training's classes alone is learned on other channels than the prompts'.

Zhang et al., "DePT: Decoupled Prompt Tuning", CVPR 2024.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEAD_RATE = 6.5
"""The authors' learning rate of the head, as a multiple of the prompts'."""


class TransferHead(nn.Module):
    """A linear classifier on features whose channels are scaled and shifted: W·(γ ∘ f + β) + b.

    Images and captions have a γ and a β of their own, and the classifier in common.

    Args:
        width: Channels of the features.
        classes: Of the training.
        weight: λ, the share of its loss and of its logits.
    """

    def __init__(self, width: int, classes: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.image_scale, self.image_shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.text_scale, self.text_shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.classifier = nn.Linear(width, classes)

    def of_images(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch classes"]:
        """Logits of images."""
        logits: Tensor = self.classifier(self.image_scale * features + self.image_shift)
        return logits

    def of_captions(self, features: Float[Tensor, "*batch captions width"]) -> Float[Tensor, "*batch captions classes"]:
        """Logits of captions, whose class is the one they name."""
        logits: Tensor = self.classifier(self.text_scale * features + self.text_shift)
        return logits


def find_transfer(model: nn.Module) -> TransferHead | None:
    """DePT's head in a model, or None."""
    return next((part for part in model.modules() if isinstance(part, TransferHead)), None)


def transfer_numbers(width: int, classes: int | None) -> int:
    """Trained numbers of a head."""
    return 4 * width + (width + 1) * (classes or 0)
