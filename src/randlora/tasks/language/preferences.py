"""Preferences: a prompt and two answers, or two texts whose common beginning is the prompt."""

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from randlora.errors import DataError
from randlora.tasks.language.conversation import check_order, kind, read_messages, text_in
from randlora.tasks.language.samples import Message, Preference


def read_preference(row: Mapping[str, Any], where: str, told: Mapping[str, Any]) -> Preference:
    """Bring a row with `chosen`, `rejected` and perhaps `prompt` to its normal form.

    Without `prompt` it is what `chosen` and `rejected` begin with in common: whole messages, or whole words of texts.
    With a text as `prompt` beside lists of messages, it is the user's message that these answer or begin with.

    Args:
        row: Values by column.
        where: The file and row, for the message.
        told: The row's `tools` and `options` for the template.

    Raises:
        DataError: A value is of the wrong type or empty, the answers are equal, or no prompt is found.
    """
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if isinstance(chosen, list) != isinstance(rejected, list) or (isinstance(prompt, list) and isinstance(chosen, str)):
        raise DataError(
            where,
            expected="'chosen' and 'rejected' both as texts or both as lists of messages, and 'prompt' as they are",
            got=f"{kind(chosen)}, {kind(rejected)} and {kind(prompt)}",
        )
    if chosen == rejected:
        raise DataError(where, expected="two answers of which one is better", got="the same as 'chosen' and 'rejected'")
    if isinstance(chosen, list):
        return _of_messages(prompt, chosen, rejected, where, told)
    better = text_in(chosen, f"{where}, column 'chosen'")
    worse = text_in(rejected, f"{where}, column 'rejected'")
    if prompt is not None:
        return Preference(text_in(prompt, f"{where}, column 'prompt'"), better, worse, **told)
    start = _shared_words(better, worse)
    if not better[:start].strip() or not better[start:].strip() or not worse[start:].strip():
        raise DataError(
            where,
            expected="'chosen' and 'rejected' that begin with the same prompt and go on differently",
            got=f"{start} characters in common",
            hint="give the prompt in a column 'prompt'",
        )
    return Preference(better[:start], better[start:], worse[start:], **told)


def _shared_words(first: str, second: str) -> int:
    """Characters in common, back to the last blank, which belongs to the word after it; a line's end does not."""
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    while common > 0 and not first[common - 1].isspace():
        common -= 1
    return common - 1 if common > 0 and first[common - 1] == " " else common


def _of_messages(prompt: Any, chosen: Any, rejected: Any, where: str, told: Mapping[str, Any]) -> Preference:
    better = read_messages(chosen, f"{where}, column 'chosen'")
    worse = read_messages(rejected, f"{where}, column 'rejected'")
    if isinstance(prompt, list):
        given = read_messages(prompt, f"{where}, column 'prompt'")
    elif better[0]["role"] == "assistant" and prompt is not None:
        given = [{"role": "user", "content": text_in(prompt, f"{where}, column 'prompt'")}]
    else:
        given = _shared_messages(better, worse, where)
        if prompt is not None and all(message["content"] != prompt for message in given):
            raise DataError(
                f"{where}, column 'prompt'",
                expected="one of the messages that 'chosen' and 'rejected' begin with",
                got="another text",
                hint="remove the column, or the prompt's messages from 'chosen' and 'rejected'",
            )
        better, worse = better[len(given) :], worse[len(given) :]
    check_order([*given, *better], f"{where}, 'prompt' and 'chosen'")
    check_order([*given, *worse], f"{where}, 'prompt' and 'rejected'")
    return Preference(given, better, worse, **told)


def _shared_messages(better: list[Message], worse: list[Message], where: str) -> list[Message]:
    pairs = zip(better, worse, strict=False)
    shared = [first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    if not shared or len(shared) in (len(better), len(worse)):
        raise DataError(
            where,
            expected="'chosen' and 'rejected' that begin with the same messages and end differently",
            got=f"{len(shared)} messages in common of {len(better)} and {len(worse)}",
            hint="give the prompt in a column 'prompt'",
        )
    return shared
