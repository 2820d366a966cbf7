"""MaPLe: prompts in the first blocks of both towers, those of the vision tower linear in those of the text tower.

Khattak et al., "MaPLe: Multi-modal Prompt Learning", CVPR 2023.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from randlora.methods.catalogue import PromptMethod
from randlora.methods.prompts.config import DeepPromptConfig
from randlora.methods.prompts.prompts import Prompts, check_depth, random_vectors, starting_context
from randlora.methods.prompts.tokens import ClassTokens
from randlora.methods.prompts.towers import image_features, text_features
from randlora.methods.prompts.transfer import transfer_numbers
from randlora.methods.prompts.tuner import PromptTuner


@dataclass
class MapleConfig(DeepPromptConfig):
    """Configuration of MaPLe: J = depth blocks have `length` vectors P_i in the text tower, F_i(P_i) in the other.

    Attributes:
        length: Vectors in the inputs of a block. Default 2.

    Example:
        >>> from transformers import CLIPConfig
        >>> from randlora.methods import PROMPTS, MapleConfig
        >>> PROMPTS[2].trained(MapleConfig(depth=1), CLIPConfig())  # 2 · 512 + 513 · 768 on ViT-B
        395008
    """

    type_name: ClassVar[str] = "RANDLORA_MAPLE"
    prefix: ClassVar[str] = "maple_"

    length: int = 2

    def describe(self) -> dict[str, str]:
        """See `OwnConfig`."""
        return {
            **super().describe(),
            "method": "MaPLe ([Khattak et al., 2023](https://arxiv.org/abs/2210.03117))",
            "update": "trained vectors in the first blocks of both towers, coupled by linear maps; both towers frozen",
            "length": str(self.length),
            "depth": str(self.depth),
        }


class MaplePrompts(Prompts):
    """MaPLe's P_1 (length, width), P_2 to P_J (J - 1, length, width) and the linear maps F_1 to F_J."""

    visual = True

    def __init__(self, config: MapleConfig, clip: Any) -> None:
        super().__init__(config, clip)
        check_depth(config, clip)
        sizes = clip.config.text_config.hidden_size, clip.config.vision_config.hidden_size
        self.context = starting_context(config, clip)
        self.deep = random_vectors(clip.text_model, config.depth - 1, config.length)
        self.maps = nn.ModuleList([nn.Linear(*sizes) for _ in range(config.depth)])

    def image(self, clip: Any, pixels: Tensor) -> Tensor:
        """See `Prompts`."""
        coupled = [chart(prompts) for chart, prompts in zip(self.maps, (self.context, *self.deep), strict=True)]
        return image_features(clip, pixels, coupled)

    def text(self, clip: Any, tokens: ClassTokens, images: Tensor) -> Tensor:  # noqa: ARG002 - one signature for all
        """See `Prompts`."""
        return text_features(clip, tokens, self.context, self.deep.unbind())


class MapleTuner(PromptTuner):
    """Puts MaPLe's prompts beside a CLIP."""

    prefix = MapleConfig.prefix
    prompts_class = MaplePrompts


def _trained(config: MapleConfig, clip: Any) -> int:
    text, vision = clip.text_config.hidden_size, clip.vision_config.hidden_size
    head = transfer_numbers(clip.projection_dim, config.classes) if config.transfer else 0
    return config.depth * (config.length * text + (text + 1) * vision) + head


METHOD = PromptMethod(
    name="maple",
    config=MapleConfig,
    tuner=MapleTuner,
    equation="blocks 1 to J: P_i in the text tower, F_i·P_i in the vision tower",
    trained=_trained,
)

DEPT = PromptMethod(
    name="dept",
    config=MapleConfig,
    tuner=MapleTuner,
    equation="MaPLe, and λ·(W·(γ ∘ f + β) + b) on the training's classes",
    trained=_trained,
    start={"transfer": True},
)
"""MaPLe with DePT's head, as in the RandLoRA paper's Table 5; the other methods have it with `transfer`."""
