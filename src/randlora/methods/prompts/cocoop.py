"""CoCoOp: a context that every image shifts by a vector of its own.

Zhou et al., "Conditional Prompt Learning for Vision-Language Models", CVPR 2022.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from randlora.methods.catalogue import PromptMethod
from randlora.methods.prompts.config import PromptConfig
from randlora.methods.prompts.prompts import Prompts, starting_context
from randlora.methods.prompts.tokens import ClassTokens
from randlora.methods.prompts.towers import text_features
from randlora.methods.prompts.transfer import transfer_numbers
from randlora.methods.prompts.tuner import PromptTuner

NARROWING = 16
"""How much narrower the network between is than the features of an image."""

_ROWS = 1024
"""Captions that go through the text tower at once, which bounds the memory of an evaluation."""


@dataclass
class CoCoOpConfig(PromptConfig):
    """Configuration of CoCoOp: captions are computed anew for every image, each with a context v + h(image).

    h has two layers with a ReLU between them, features -> features // 16 -> width. There are no fields of its own.

    Example:
        >>> from transformers import CLIPConfig
        >>> from randlora.methods import PROMPTS, CoCoOpConfig
        >>> PROMPTS[1].trained(CoCoOpConfig(), CLIPConfig())  # on ViT-B: 4 · 512, and 513 · 32 + 33 · 512
        35360
    """

    type_name: ClassVar[str] = "RANDLORA_COCOOP"
    prefix: ClassVar[str] = "cocoop_"

    def describe(self) -> dict[str, str]:
        """See `OwnConfig`."""
        return {
            **super().describe(),
            "method": "CoCoOp ([Zhou et al., 2022](https://arxiv.org/abs/2203.05557))",
            "update": "a trained context before the class names, shifted by each image; both towers frozen",
            "length": str(self.length),
        }


class CoCoOpPrompts(Prompts):
    """CoCoOp's context (length, width) and the network h."""

    by_image = True

    def __init__(self, config: CoCoOpConfig, clip: Any) -> None:
        super().__init__(config, clip)
        features, width = clip.config.projection_dim, clip.config.text_config.hidden_size
        narrow = max(1, features // NARROWING)
        self.context = starting_context(config, clip)
        self.shift = nn.Sequential(nn.Linear(features, narrow), nn.ReLU(), nn.Linear(narrow, width))

    def text(self, clip: Any, tokens: ClassTokens, images: Tensor) -> Tensor:
        """See `Prompts`; (batch, classes, features)."""
        shifts = self.shift(nn.functional.normalize(images, dim=-1))
        classes, found = len(tokens.ids), []
        for some in shifts.split(max(1, _ROWS // classes)):
            contexts = self.context + some[:, None]
            rows = torch.arange(classes, device=tokens.ids.device).repeat(len(some))
            features = text_features(clip, tokens[rows], contexts.repeat_interleave(classes, dim=0))
            found.append(features.unflatten(0, (len(some), classes)))
        return torch.cat(found)


class CoCoOpTuner(PromptTuner):
    """Puts CoCoOp's context and network beside a CLIP."""

    prefix = CoCoOpConfig.prefix
    prompts_class = CoCoOpPrompts


def _trained(config: CoCoOpConfig, clip: Any) -> int:
    features, width = clip.projection_dim, clip.text_config.hidden_size
    narrow = max(1, features // NARROWING)
    head = transfer_numbers(features, config.classes) if config.transfer else 0
    return config.length * width + (features + 1) * narrow + (narrow + 1) * width + head


METHOD = PromptMethod(
    name="cocoop",
    config=CoCoOpConfig,
    tuner=CoCoOpTuner,
    equation="captions [v₁ + h(x)]…[v_M + h(x)] name.",
    trained=_trained,
)
