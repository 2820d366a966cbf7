"""CLIP with the captions of the classes as its classifier."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn


class ZeroShotClassifier(nn.Module):
    """CLIP with the captions of the classes as its classifier: logits = exp(s) · normalized(image) · headᵀ.

    A row of the head (classes, width) is the normalized mean over the templates of the normalized text features.

    Args:
        clip: `CLIPModel`, adapted or not.
        prompts: Token ids and mask of all captions, (classes · templates, length) each, class by class.
        classes: Number of classes.
        trained: How many of them are trained on, the first ones; None means all.
        text_trained: Whether the text tower changes in training. The head is then computed anew in every training
            step, with gradients; otherwise it is computed once, here.
        train_head: Whether the head is a parameter of its own that starts at the zero-shot head (a linear probe).
    """

    def __init__(
        self,
        clip: nn.Module,
        prompts: dict[str, Tensor],
        classes: int,
        *,
        text_trained: bool,
        train_head: bool,
        trained: int | None = None,
    ) -> None:
        super().__init__()
        self.clip, self.classes, self.shown = clip, classes, range(trained or classes)
        for name, tensor in prompts.items():
            self.register_buffer(f"prompt_{name}", tensor, persistent=False)
        self.prompt_names = tuple(prompts)
        self.cached_head: Tensor | None
        self.register_buffer("cached_head", None, persistent=False)
        self.text_trained = text_trained
        if not text_trained:
            clip.eval()
            with torch.no_grad():
                head = self.zero_shot_head()
            if train_head:
                self.head = nn.Parameter(head)
            else:
                self.cached_head = head

    def zero_shot_head(self) -> Tensor:
        """The head of the classes shown from the text tower as it is now, (classes, width)."""
        prompts = {name: getattr(self, f"prompt_{name}") for name in self.prompt_names}
        features = nn.functional.normalize(caption_features(self._clip, prompts, self.classes, self.shown), dim=-1)
        return nn.functional.normalize(features.mean(dim=1), dim=-1)

    def show(self, classes: range) -> None:
        """Classify among these classes from now on."""
        self.shown, self.cached_head = classes, None
        if not self.text_trained and not hasattr(self, "head"):
            with torch.no_grad():
                self.cached_head = self.zero_shot_head()

    def train(self, mode: bool = True) -> "ZeroShotClassifier":
        """Switch to training or evaluation; an evaluation computes its head once, at its first batch."""
        if self.text_trained:
            self.cached_head = None
        super().train(mode)
        return self

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Classify images.

        Args:
            pixel_values: (batch, 3, height, width), normalized.

        Returns:
            "logits" (batch, classes).
        """
        images = self._clip.get_image_features(pixel_values).pooler_output
        head = self._head()
        # The scale is about 100: in bf16, logits of 25 would be 0.125 apart.
        with torch.autocast(images.device.type, enabled=False):
            images = nn.functional.normalize(images.float(), dim=-1)
            return {"logits": self._clip.logit_scale.exp() * images @ head.float().T}

    def _head(self) -> Tensor:
        if hasattr(self, "head"):
            return self.head
        if self.cached_head is not None:
            return self.cached_head
        head = self.zero_shot_head()
        if not torch.is_grad_enabled():
            self.cached_head = head
        return head

    @property
    def _clip(self) -> Any:
        """The CLIPModel inside a PEFT wrapper: adapters live in its layers, so that its methods use them."""
        return self.clip.get_base_model() if isinstance(self.clip, PeftModel) else self.clip


def caption_features(clip: Any, prompts: Mapping[str, Tensor], classes: int, shown: range) -> Tensor:
    """Features of captions from the text tower, (shown classes, templates, width), not normalized.

    Args:
        clip: A `CLIPModel`.
        prompts: See `ZeroShotClassifier`.
        classes: Number of classes that have captions.
        shown: The classes wanted.
    """
    rows = {name: tensor.unflatten(0, (classes, -1))[shown.start : shown.stop] for name, tensor in prompts.items()}
    flat = {name: tensor.flatten(0, 1) for name, tensor in rows.items()}
    found: Tensor = clip.get_text_features(**flat).pooler_output
    return found.unflatten(0, (len(shown), -1))
