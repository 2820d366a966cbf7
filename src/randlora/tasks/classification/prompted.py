"""CLIP with trained prompts as a classifier: features of both towers, their logits, and the loss of a method."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, l1_loss, log_softmax, normalize

from randlora.methods.prompts.prompts import Prompts
from randlora.methods.prompts.promptsrc import PromptSRCPrompts
from randlora.methods.prompts.tokens import ClassTokens
from randlora.methods.prompts.tuner import prompts_of
from randlora.tasks.classification.task import classification_loss, full_precision


class PromptClassifier(nn.Module):
    """Logits exp(s) · cos(image, caption) of CLIP with prompts.

    Args:
        clip: CLIP with the prompts of a method.
        tokens: Captions of all classes.
        trained: How many of the classes are trained on, the first ones.
        frozen: For PromptSRC the normalized features of these classes that the frozen text tower has, (trained, width).
        foreign: Whether the classes are others, of which DePT's head knows nothing.
    """

    def __init__(
        self, clip: PeftModel, tokens: ClassTokens, trained: int, frozen: Tensor | None, *, foreign: bool = False
    ) -> None:
        super().__init__()
        self.foreign = foreign
        self.clip = clip
        self.ids: Tensor
        self.places: Tensor
        self.last: Tensor
        for name in ("ids", "places", "last"):
            self.register_buffer(name, getattr(tokens, name), persistent=False)
        self.frozen: Tensor | None
        self.register_buffer("frozen", frozen, persistent=False)
        self.cached_text: Tensor | None
        self.register_buffer("cached_text", None, persistent=False)
        self.trained = self.shown = range(trained)

    @property
    def prompts(self) -> Prompts:
        """What is trained."""
        found = prompts_of(self.clip)
        if found is None:
            raise TypeError("the model has no prompts")
        return found

    @property
    def sees_frozen_images(self) -> bool:
        """Whether an image has the same features whatever is trained."""
        return not self.prompts.visual and self.clip.peft_config["default"].adapter is None

    def train(self, mode: bool = True) -> "PromptClassifier":
        """Switch to training or evaluation; an evaluation computes its captions once, at its first batch."""
        self.cached_text = None
        super().train(mode)
        return self

    def show(self, classes: range) -> None:
        """Classify among these classes from now on."""
        self.shown, self.cached_text = classes, None

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Features of images, on whatever device the model is."""
        with torch.autocast(self.ids.device.type, enabled=False):
            return self.prompts.image(self._clip, pixel_values.to(self.ids.device))

    def forward(self, pixel_values: Any = None, image_features: Tensor | None = None) -> dict[str, Tensor]:
        """Classify images.

        Args:
            pixel_values: (batch, 3, height, width), normalized; or, where no prompts are in the vision tower,
            image_features: (batch, width), as `encode` gives them.

        Returns:
            "logits" (batch, classes); in training also what `loss` needs beside them.
        """
        prompts = self.prompts
        images = image_features
        if images is None:
            images = prompts.image(self._clip, pixel_values)
        captions = self._captions(images)
        head = prompts.transfer if self.shown == self.trained and not self.foreign else None
        # The scale is about 100: in bf16, logits of 25 would be 0.125 apart.
        with torch.autocast(images.device.type, enabled=False):
            images, captions = full_precision(images), full_precision(captions)
            logits = self._logits(images, captions)
            if not self.training:
                if head is not None:
                    logits = (1 - head.weight) * logits + head.weight * head.of_images(images)
                return {"logits": logits}
            outputs = {"logits": logits}
            if head is not None:
                outputs |= {"image_transfer": head.of_images(images), "caption_transfer": head.of_captions(captions)}
        if isinstance(prompts, PromptSRCPrompts) and pixel_values is not None:
            outputs["disagreement"] = self._disagreement(prompts, pixel_values, images, captions, logits)
        return outputs

    def loss(
        self, outputs: Mapping[str, Tensor], labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Cross entropy and what the method adds; see `classification_loss`."""
        found = classification_loss(outputs, labels, num_items_in_batch)
        count = len(labels) if num_items_in_batch is None else num_items_in_batch
        if "disagreement" in outputs:
            found = found + outputs["disagreement"] * (len(labels) / count)
        head = self.prompts.transfer
        if "image_transfer" in outputs and head is not None:
            captions = outputs["caption_transfer"]
            rows = torch.arange(len(labels), device=labels.device)
            own = captions[labels] if captions.ndim == 2 else captions[rows, labels]
            both, twice = torch.cat([own, outputs["image_transfer"]]), torch.cat([labels, labels])
            transfer = cross_entropy(both, twice, reduction="sum") / (2 * count)
            found = (1 - head.weight) * found + head.weight * transfer
        return found

    def _captions(self, images: Tensor) -> Tensor:
        """Features of the captions of the classes shown, (classes, width), or (batch, classes, width)."""
        if self.cached_text is not None:
            return self.cached_text
        shown = slice(self.shown.start, self.shown.stop)
        tokens = ClassTokens(self.ids, self.places, self.last)[shown]
        found = self.prompts.text(self._clip, tokens, images)
        if not torch.is_grad_enabled() and not self.prompts.by_image:
            self.cached_text = found
        return found

    def _logits(self, images: Tensor, captions: Tensor) -> Tensor:
        products = "bf,cf->bc" if captions.ndim == 2 else "bf,bcf->bc"
        found: Tensor = self._clip.logit_scale.exp() * torch.einsum(products, _units(images), _units(captions))
        return found

    def _disagreement(
        self, prompts: PromptSRCPrompts, pixel_values: Tensor, images: Tensor, captions: Tensor, logits: Tensor
    ) -> Tensor:
        """PromptSRC's three terms: how far features and logits are from those of the frozen towers."""
        if self.frozen is None:
            raise TypeError("the frozen towers' captions are not known")
        with torch.no_grad():
            frozen = self._clip.get_image_features(pixel_values).pooler_output
        with torch.autocast(images.device.type, enabled=False):
            frozen, captions_then = _units(full_precision(frozen)), self.frozen
            then = self._clip.logit_scale.exp() * frozen @ captions_then.T
            divergence = kl_div(log_softmax(logits, 1), log_softmax(then, 1), reduction="sum", log_target=True)
            return (
                divergence / logits.numel()
                + prompts.text_weight * l1_loss(_units(captions), captions_then)
                + prompts.image_weight * l1_loss(_units(images), frozen)
            )

    @property
    def _clip(self) -> Any:
        """The CLIPModel inside the PEFT wrapper."""
        return self.clip.get_base_model()


def _units(features: Tensor) -> Tensor:
    return normalize(features, dim=-1)
