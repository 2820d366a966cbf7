"""Which part of an example is learned: the choices, under TRL's names."""

from dataclasses import dataclass
from typing import Literal

from randlora.errors import ConfigError


@dataclass(frozen=True)
class Loss:
    """What carries a loss.

    Attributes:
        completion_only_loss: Completions and the assistant's turns are learned, prompts and users' turns are not; False
            learns every token. Texts are learned whole either way.
        assistant_only_loss: In conversations every turn of the assistant is learned, or the "last" only; False learns
            every token.
        train_on_inputs: LLM-Adapters' name and protocol: every token is learned, whatever the others say.
    """

    completion_only_loss: bool = True
    assistant_only_loss: bool | Literal["last"] = True
    train_on_inputs: bool = False

    def __post_init__(self) -> None:
        if self.assistant_only_loss not in (True, False, "last"):
            raise ConfigError(
                "assistant_only_loss", expected="true, false or 'last'", got=repr(self.assistant_only_loss)
            )

    @property
    def of_completions(self) -> bool:
        """Whether prompts are left out of the loss."""
        return self.completion_only_loss and not self.train_on_inputs

    @property
    def of_turns(self) -> bool:
        """Whether turns of others than the assistant are left out of the loss."""
        return self.of_completions and self.assistant_only_loss is not False
