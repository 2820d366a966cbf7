"""Messages as they must be for training: who speaks when, and that everybody says something."""

import re
from typing import Any

from randlora.errors import DataError
from randlora.tasks.language.samples import WEIGHT, Message

_SURROGATE = re.compile("[\ud800-\udfff]")

_FOLLOWS: dict[str, tuple[str, ...]] = {
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "tool": ("assistant", "tool"),
}
"""Who may speak after whom; a tool answers an assistant that called one."""


def text_in(value: Any, where: str) -> str:
    """Check that a value is a text with something in it.

    Args:
        value: From a row.
        where: The file, row and column, for the message.

    Raises:
        DataError: It is not.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError(where, expected="a text", got="an empty one" if isinstance(value, str) else kind(value))
    if _SURROGATE.search(value):
        raise DataError(where, expected="a text", got="one with half of a surrogate pair")
    return value


def kind(value: Any) -> str:
    """What a value from a row is, in words."""
    if isinstance(value, bool):
        return str(value).lower()
    for types, name in ((str, "a text"), (int | float, "a number"), (list, "a list"), (dict, "an object")):
        if isinstance(value, types):
            return name
    return "nothing" if value is None else f"a {type(value).__name__}"


def read_messages(value: Any, where: str, keys: tuple[str, str] = ("role", "content")) -> list[Message]:
    """Check that a value is a list of messages that say something; their order is not asked.

    Args:
        value: From a row.
        where: The file, row and column, for the message of an error.
        keys: What role and content are called there.

    Returns:
        Messages of `role`, `content` (one text, also where it was a list of parts) and, as they are, the keys beside
        them that are not null.

    Raises:
        DataError: It is no list, or a message in it is empty, of another make, or has a part that is no text.
    """
    if not isinstance(value, list) or not value:
        raise DataError(where, expected="a list of messages", got="an empty one" if value == [] else kind(value))
    return [_message(entry, f"{where}, message {index}", keys) for index, entry in enumerate(value)]


def _message(entry: Any, where: str, keys: tuple[str, str]) -> Message:
    role_key, content_key = keys
    if not isinstance(entry, dict) or not isinstance(entry.get(role_key), str):
        got = ", ".join(f"'{key}'" for key in entry) if isinstance(entry, dict) else kind(entry)
        raise DataError(where, expected=f"an object with '{role_key}' and '{content_key}'", got=got or "an empty one")
    others = {key: held for key, held in entry.items() if key not in keys and held is not None}
    if others.get(WEIGHT, 1) not in (0, 1):
        raise DataError(f"{where}, '{WEIGHT}'", expected="0 or 1", got=repr(others[WEIGHT]))
    content = _joined(entry.get(content_key), f"{where}, '{content_key}'")
    # A call of a tool may be all that an assistant says.
    if others.get("tool_calls") and content in (None, ""):
        return {"role": entry[role_key], "content": "", **others}
    return {"role": entry[role_key], "content": text_in(content, f"{where}, '{content_key}'"), **others}


def _joined(content: Any, where: str) -> Any:
    """A message's content as one text where it comes in parts, as for models that see pictures; else as it is."""
    if not isinstance(content, list):
        return content
    for index, part in enumerate(content):
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            got = f"one of type {part.get('type')!r}" if isinstance(part, dict) else kind(part)
            raise DataError(f"{where}, part {index}", expected="a part of type 'text' with its 'text'", got=got)
    return "".join(part["text"] for part in content)


def check_order(messages: list[Message], where: str) -> None:
    """Check that messages are a system's or none, then a user's and the assistant's in turn, the assistant's last.

    Args:
        messages: From `read_messages`.
        where: The file, row and column, for the message of an error.

    Raises:
        DataError: Another speaks at some place.
    """
    allowed: tuple[str, ...] = ("system", "user")
    for index, message in enumerate(messages):
        role = message["role"]
        if role not in allowed:
            raise DataError(
                f"{where}, message {index}",
                expected=f"a message of {' or '.join(allowed)}",
                got=f"one of '{role}'",
                hint="roles are system at the start or not at all, then user and assistant in turn",
            )
        calls = role == "assistant" and message.get("tool_calls")
        allowed = ("tool", "user") if calls else _FOLLOWS[role]
    if messages[-1]["role"] != "assistant":
        raise DataError(
            where, expected="the assistant's message at the end", got=f"the {messages[-1]['role']}'s", hint="remove it"
        )
