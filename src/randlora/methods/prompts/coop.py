"""CoOp: the words around a class name are trained vectors.

Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from randlora.adapter_config import check_choice
from randlora.errors import ConfigError
from randlora.methods.catalogue import PromptMethod
from randlora.methods.prompts.config import PromptConfig
from randlora.methods.prompts.prompts import Prompts, starting_context
from randlora.methods.prompts.tokens import ClassTokens
from randlora.methods.prompts.towers import text_features
from randlora.methods.prompts.transfer import transfer_numbers
from randlora.methods.prompts.tuner import PromptTuner


@dataclass
class CoOpConfig(PromptConfig):
    """Configuration of CoOp: it trains length·width numbers, or as many for each class.

    Attributes:
        length: Vectors of the context. Default 16.
        words: See `PromptConfig`. Default None.
        class_specific: Whether each class has a context of its own; new classes then have none.
        position: Where the class name stands: behind the context ("end"), between its halves ("middle") or before it
            ("front").

    Raises:
        ConfigError: A value is out of range.

    Example:
        >>> from transformers import CLIPConfig
        >>> from randlora.methods import PROMPTS, CoOpConfig
        >>> PROMPTS[0].trained(CoOpConfig(length=4), CLIPConfig())  # 4 · 512 on ViT-B
        2048
    """

    type_name: ClassVar[str] = "RANDLORA_COOP"
    prefix: ClassVar[str] = "coop_"

    length: int = 16
    words: str | None = None
    class_specific: bool = False
    position: Literal["end", "middle", "front"] = "end"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("position", self.position, ("end", "middle", "front"))

    @property
    def by_class(self) -> bool:
        """See `PromptConfig`."""
        return self.class_specific

    def describe(self) -> dict[str, str]:
        """See `OwnConfig`."""
        return {
            **super().describe(),
            "method": "CoOp ([Zhou et al., 2022](https://arxiv.org/abs/2109.01134))",
            "update": "a trained context around the class names; both towers frozen",
            "length": str(self.length),
        }


class CoOpPrompts(Prompts):
    """CoOp's context: (length, width), or (classes, length, width)."""

    def __init__(self, config: CoOpConfig, clip: Any) -> None:
        super().__init__(config, clip)
        self.position = config.position
        self.context = starting_context(config, clip)
        if config.class_specific:
            if config.classes is None:
                raise ConfigError("classes", expected="the number of classes, for contexts of their own", got="none")
            own = self.context.detach().expand(config.classes, -1, -1).clone()
            # Each class has its own draw; words are the same for all.
            self.context = nn.Parameter(own if config.word_ids is not None else own.normal_(std=0.02))

    def text(self, clip: Any, tokens: ClassTokens, images: Tensor) -> Tensor:  # noqa: ARG002 - one signature for all
        """See `Prompts`."""
        return text_features(clip, tokens, self.context)


class CoOpTuner(PromptTuner):
    """Puts CoOp's context beside a CLIP."""

    prefix = CoOpConfig.prefix
    prompts_class = CoOpPrompts


def _trained(config: CoOpConfig, clip: Any) -> int:
    contexts = config.classes or 1 if config.class_specific else 1
    head = transfer_numbers(clip.projection_dim, config.classes) if config.transfer else 0
    return contexts * config.length * clip.text_config.hidden_size + head


METHOD = PromptMethod(
    name="coop",
    config=CoOpConfig,
    tuner=CoOpTuner,
    equation="captions [v₁]…[v_M] name.",
    trained=_trained,
)
