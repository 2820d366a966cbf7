"""What the configs of prompt methods share."""

from dataclasses import dataclass
from typing import Any

from randlora.adapter_config import OwnConfig, check_count, is_number
from randlora.errors import ConfigError


@dataclass
class PromptConfig(OwnConfig):
    """A prompt method on CLIP, whose weights stay frozen.

    Attributes:
        length: Vectors of the context. Where `words` start it, as many of their tokens are trained and the others stay
            behind it as they are.
        words: What the context starts from; None starts it at random, normal with standard deviation 0.02.
        transfer: DePT: a head on scaled and shifted channels is trained beside the prompts, on the training's classes.
        transfer_weight: λ, the share of the head's loss and of its logits; the prompts have 1 - λ.
        adapter: An adapter of the towers' weights that is trained together with the prompts: in a run the keys of a
            `method` section, in a PEFT config those of its own PEFT config, `peft_type` among them. None means none,
            and frozen towers.
        classes: Number of the training's classes; filled in.
        word_ids: Token numbers of `words`; filled in.

    Raises:
        ConfigError: A value is out of range.
    """

    length: int = 4
    words: str | None = "a photo of a"
    transfer: bool = False
    transfer_weight: float = 0.7
    adapter: dict[str, Any] | None = None
    classes: int | None = None
    word_ids: list[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("length", self.length)
        if not is_number(self.transfer_weight) or not 0 < self.transfer_weight < 1:
            raise ConfigError("transfer_weight", expected="a number between 0 and 1", got=repr(self.transfer_weight))

    @property
    def by_class(self) -> bool:
        """Whether there are prompts of each class, which leave classes unseen in training without."""
        return False

    def describe(self) -> dict[str, str]:
        """See `OwnConfig`; a model that PEFT has loaded does not read the prompts by itself."""
        facts = {"use": "`randlora evaluate` on the run's folder; CLIP's own forward pass does not read prompts"}
        if self.transfer:
            facts["head"] = (
                f"DePT ([Zhang et al., 2024](https://arxiv.org/abs/2309.07439)), λ = {self.transfer_weight:g}"
            )
        if self.adapter is not None:
            facts["beside it"] = f"{self.adapter['peft_type']}, on the towers' weights"
        return facts

    def settle(self, classes: int, word_ids: list[int]) -> None:
        """Fill in what the data and the tokenizer say.

        Args:
            classes: Number of the training's classes.
            word_ids: Token numbers of `words`; none where there are no words.

        Raises:
            ConfigError: There are fewer of them than the context has vectors.
        """
        if self.words is not None and len(word_ids) < self.length:
            raise ConfigError(
                "words",
                expected=f"at least {self.length} tokens, the context's length",
                got=f"{len(word_ids)} in {self.words!r}",
                hint="set options.length, or options.words to null",
            )
        self.classes, self.word_ids = classes, word_ids if self.words is not None else None

    @property
    def behind(self) -> list[int]:
        """Token numbers of the words behind the trained ones."""
        return (self.word_ids or [])[self.length :]


@dataclass
class DeepPromptConfig(PromptConfig):
    """A prompt method with prompts of their own in several blocks of both towers.

    Attributes:
        depth: Blocks with prompts of their own, the first ones of each tower. Default 9.
    """

    depth: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("depth", self.depth)
