"""The wording around an instruction: alpaca's, and the one that LLM-Adapters' tables were made with."""

from collections.abc import Callable
from typing import Literal, TypeAlias

Wording: TypeAlias = Literal["alpaca", "llm_adapters"]

_PLAIN = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
_PAIRED = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)


def alpaca(instruction: str, given: str = "") -> str:
    """Stanford Alpaca's prompt; the response begins right behind it.

    Args:
        instruction: What to do.
        given: What to do it with; empty for none.

    Example:
        >>> alpaca("Greet the reader.").splitlines()[2:]
        ['### Instruction:', 'Greet the reader.', '', '### Response:']
    """
    parts = [_PAIRED if given else _PLAIN, f"### Instruction:\n{instruction}"]
    if given:
        parts.append(f"### Input:\n{given}")
    return "\n\n".join([*parts, "### Response:\n"])


def llm_adapters(instruction: str, given: str = "") -> str:
    """The training prompt of LLM-Adapters, letter for letter.

    Its source is an indented string, so that every line begins with 16 blanks, empty ones too where a field precedes
    them, and a comment for a linter became part of the text. Adapters compared with published tables must see the same.

    Args:
        instruction: What to do.
        given: What to do it with; empty for none.
    """
    margin = " " * 16
    fields = [("Instruction", instruction), *([("Input", given)] if given else [])]
    head = (_PAIRED if given else _PLAIN) + "  # noqa: E501\n\n"
    body = "".join(f"{margin}### {name}:\n{margin}{value}\n{margin}\n" for name, value in fields)
    return f"{head}{body}{margin}### Response:\n{margin}"


WORDINGS: dict[Wording, Callable[[str, str], str]] = {"alpaca": alpaca, "llm_adapters": llm_adapters}
