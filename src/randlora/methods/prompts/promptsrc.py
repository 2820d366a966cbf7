"""PromptSRC: prompts in the first blocks of both towers, held near what the frozen towers say.

Khattak et al., "Self-regulating Prompts: Foundational Model Adaptation without Forgetting", ICCV 2023.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from randlora.adapter_config import check_positive, is_number
from randlora.errors import ConfigError
from randlora.methods.catalogue import PromptMethod
from randlora.methods.prompts.config import DeepPromptConfig
from randlora.methods.prompts.prompts import Prompts, check_depth, random_vectors, starting_context
from randlora.methods.prompts.tokens import ClassTokens
from randlora.methods.prompts.towers import image_features, text_features
from randlora.methods.prompts.transfer import transfer_numbers
from randlora.methods.prompts.tuner import PromptTuner

_SMALLEST = 1e-300
"""Weight of an epoch in the average, at least."""


@dataclass
class PromptSRCConfig(DeepPromptConfig):
    """Configuration of PromptSRC: independent vectors in the first blocks of either tower.

    The loss has three more terms: the mean absolute difference of normalized features from those of the frozen towers,
    of captions and of images, and the divergence KL(frozen ‖ prompted) of the logits' distributions, its sum divided by
    batch · classes. After training the prompts are a Gaussian-weighted average of what they were after each epoch.

    Attributes:
        text_weight: Of the captions' difference. Default 25.
        image_weight: Of the images' difference. Default 10.
        average_mean: Where in the training the average weighs most, as a share of it. Default 0.75, epoch 15 of 20.
        average_std: Standard deviation of the weights around it, as a share. Default 0.05, one epoch of 20.

    Raises:
        ConfigError: A value is out of range.

    Example:
        >>> from transformers import CLIPConfig
        >>> from randlora.methods import PROMPTS, PromptSRCConfig
        >>> PROMPTS[3].trained(PromptSRCConfig(), CLIPConfig())  # 9 · 4 · (512 + 768) on ViT-B
        46080
    """

    type_name: ClassVar[str] = "RANDLORA_PROMPTSRC"
    prefix: ClassVar[str] = "promptsrc_"

    text_weight: float = 25.0
    image_weight: float = 10.0
    average_mean: float = 0.75
    average_std: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("text_weight", "image_weight"):
            value = getattr(self, name)
            if not is_number(value) or not math.isfinite(value) or value < 0:
                raise ConfigError(name, expected="a number of at least 0", got=repr(value))
        if self.adapter is not None:
            hint = "the towers that the prompts are held near have to stay frozen"
            raise ConfigError("adapter", expected="none with PromptSRC", got=repr(self.adapter), hint=hint)
        for name in ("average_mean", "average_std"):
            check_positive(name, getattr(self, name))
        if self.average_mean > 1:
            raise ConfigError(
                "average_mean", expected="a share of the training, at most 1", got=repr(self.average_mean)
            )

    def describe(self) -> dict[str, str]:
        """See `OwnConfig`."""
        return {
            **super().describe(),
            "method": "PromptSRC ([Khattak et al., 2023](https://arxiv.org/abs/2307.06948))",
            "update": "trained vectors in the first blocks of both towers, held near the frozen ones",
            "length": str(self.length),
            "depth": str(self.depth),
        }


class PromptSRCPrompts(Prompts):
    """PromptSRC's vectors: `context` (length, width), `deep` (J - 1, length, width), `vision` (J, length, width).

    Beside them, while it is trained, their weighted sums over the epochs, `average_*`, and the sum of the weights; a
    checkpoint holds these too. They are in float64, since early weights are as small as e⁻⁹⁸.
    """

    visual = True
    averaged = ("context", "deep", "vision")

    def __init__(self, config: PromptSRCConfig, clip: Any) -> None:
        super().__init__(config, clip)
        check_depth(config, clip)
        self.text_weight, self.image_weight = config.text_weight, config.image_weight
        self.mean, self.std = config.average_mean, config.average_std
        self.context = starting_context(config, clip)
        self.deep = random_vectors(clip.text_model, config.depth - 1, config.length)
        self.vision = random_vectors(clip.vision_model, config.depth, config.length)
        for name in self.averaged:
            start = torch.zeros_like(getattr(self, name), dtype=torch.float64, requires_grad=False)
            self.register_buffer(f"average_{name}", start, persistent=False)
        self.register_buffer("average_weight", torch.zeros((), dtype=torch.float64), persistent=False)

    def image(self, clip: Any, pixels: Tensor) -> Tensor:
        """See `Prompts`."""
        return image_features(clip, pixels, self.vision.unbind())

    def text(self, clip: Any, tokens: ClassTokens, images: Tensor) -> Tensor:  # noqa: ARG002 - one signature for all
        """See `Prompts`."""
        return text_features(clip, tokens, self.context, self.deep.unbind())

    @torch.no_grad()
    def add_epoch(self, share: float) -> None:
        """Take the vectors as they are into the average.

        Args:
            share: Of the training that is done.
        """
        # Where a narrow Gaussian lies between two epochs, all weights would be 0 and there would be no average.
        weight = max(math.exp(-0.5 * ((share - self.mean) / self.std) ** 2), _SMALLEST)
        for name in self.averaged:
            getattr(self, f"average_{name}").add_(getattr(self, name).double(), alpha=weight)
        self.get_buffer("average_weight").add_(weight)

    @torch.no_grad()
    def take_average(self) -> None:
        """Put the average in the place of the vectors; before the first epoch's end there is none."""
        total = self.get_buffer("average_weight")
        if total > 0:
            for name in self.averaged:
                getattr(self, name).copy_(getattr(self, f"average_{name}") / total)


class PromptSRCTuner(PromptTuner):
    """Puts PromptSRC's vectors beside a CLIP."""

    prefix = PromptSRCConfig.prefix
    prompts_class = PromptSRCPrompts


def _trained(config: PromptSRCConfig, clip: Any) -> int:
    widths = clip.text_config.hidden_size + clip.vision_config.hidden_size
    head = transfer_numbers(clip.projection_dim, config.classes) if config.transfer else 0
    return config.depth * config.length * widths + head


METHOD = PromptMethod(
    name="promptsrc",
    config=PromptSRCConfig,
    tuner=PromptSRCTuner,
    equation="blocks 1 to J: P_i in the text tower, Q_i in the vision tower; held near the frozen towers",
    trained=_trained,
)
