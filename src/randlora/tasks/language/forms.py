"""Forms of language data, known by their columns, and the one normal form that all rows are brought to."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from randlora.errors import DataError
from randlora.tasks.language.alpaca import WORDINGS, Wording
from randlora.tasks.language.choices import COLUMN as CHOICES
from randlora.tasks.language.conversation import check_order, kind, read_messages, text_in
from randlora.tasks.language.meanings import prompt_of_meaning
from randlora.tasks.language.preferences import read_preference
from randlora.tasks.language.samples import Completion, Conversation, Message, Sample, Text


@dataclass(frozen=True)
class Form:
    """A form of data.

    Attributes:
        name: What a config calls it.
        needs: Columns that it has.
        may: Columns that it may have.
    """

    name: str
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()


E2E = Form("e2e", ("mr", "ref"))
"""The E2E challenge's: a meaning representation, and a text that says it."""

_TOLD = "tools", "chat_template_kwargs"
"""Columns for the chat template, as TRL has them."""

_COMPLETION = Form("completion", ("prompt", "completion"), _TOLD)
_TEXT = Form("text", ("text",))

FORMS = (
    Form("messages", ("messages",), _TOLD),
    _COMPLETION,
    Form("preference", ("chosen", "rejected"), ("prompt", *_TOLD)),
    Form("alpaca", ("instruction", "output"), ("input", *_TOLD)),
    Form("sharegpt", ("conversations",), _TOLD),
    E2E,
    _TEXT,
)

SHARED = frozenset({*_TOLD, CHOICES})
"""Columns that do not tell a form."""

COLUMNS = SHARED.union(*((*form.needs, *form.may) for form in FORMS))
"""Columns that some form reads; others may stand beside them and are left alone."""

PICTURES = ("image", "images")
"""Columns of examples that speak of what a language model does not see."""

_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def recognise(columns: Iterable[str], source: str, form: str | None = None) -> Form:
    """Tell the form of a table by its columns.

    Args:
        columns: Names of its columns.
        source: Where it comes from, for the message.
        form: The form to read it in, where its columns belong to several.

    Raises:
        DataError: They make no form, belong to more than one and none is named, or hold pictures.
    """
    found = list(dict.fromkeys(columns))
    complete = [candidate for candidate in FORMS if set(candidate.needs) <= set(found)]
    if form is not None:
        named = next((candidate for candidate in complete if candidate.name == form), None)
        if named is None:
            raise DataError(source, expected=f"the columns of the form '{form}' among {_FORMS}", got=_listed(found))
        return named
    if not complete:
        raise DataError(source, expected=f"the columns of one form: {_FORMS}", got=_listed(found))
    only = complete[0]
    foreign = [column for column in found if column in COLUMNS - SHARED and column not in (*only.needs, *only.may)]
    hint = f"remove columns, or name the form: data.train: [{{source: {source}, form: {only.name}}}]"
    if foreign:
        got = f"those of '{only.name}' and {_listed(foreign)}"
        raise DataError(source, expected=f"the columns of one form: {_FORMS}", got=got, hint=hint)
    if pictures := [column for column in PICTURES if column in found]:
        expected = "examples whose texts are all there is to see"
        raise DataError(source, expected=expected, got=f"{_listed(pictures)} beside them", hint=hint)
    return only


def normalise(row: Mapping[str, Any], form: Form, where: str, *, wording: Wording | None = "alpaca") -> Sample:
    """Bring a row to its normal form.

    Args:
        row: Values by column.
        form: From `recognise`.
        where: The file and row, for the message.
        wording: The prompt made around an instruction; None makes it a user's message for the chat template.

    Returns:
        A `Text`, `Completion`, `Conversation` or `Preference`.

    Raises:
        DataError: A value is of the wrong type or empty, or the speakers are in another order.
    """
    if form.name == "alpaca":
        return _alpaca(row, where, wording)
    if form.name == "preference":
        return read_preference(row, where, told(row, where))
    if form in _TEXTS:
        return _TEXTS[form](row, where)
    if form.name == "sharegpt":
        messages = _from_sharegpt(row.get("conversations"), f"{where}, column 'conversations'")
        check_order(messages, where)
        return Conversation(messages, **told(row, where))
    messages = read_messages(row.get("messages"), f"{where}, column 'messages'")
    check_order(messages, where)
    return Conversation(messages, **told(row, where))


def _completion(row: Mapping[str, Any], where: str) -> Completion | Conversation:
    prompt, completion = row.get("prompt"), row.get("completion")
    places = f"{where}, column 'prompt'", f"{where}, column 'completion'"
    if isinstance(prompt, list) and isinstance(completion, list):
        given = read_messages(prompt, places[0])
        answer = read_messages(completion, places[1])
        check_order([*given, *answer], where)
        return Conversation([*given, *answer], given=len(given), **told(row, where))
    if isinstance(prompt, list) or isinstance(completion, list):
        raise DataError(
            where,
            expected="'prompt' and 'completion' both as texts or both as lists of messages",
            got=f"{kind(prompt)} and {kind(completion)}",
        )
    return Completion(text_in(prompt, places[0]), text_in(completion, places[1]))


def _text(row: Mapping[str, Any], where: str) -> Text:
    return Text(text_in(row.get("text"), f"{where}, column 'text'"))


def _meaning(row: Mapping[str, Any], where: str) -> Completion:
    prompt = prompt_of_meaning(row.get("mr"), f"{where}, column 'mr'")
    return Completion(prompt, " " + text_in(row.get("ref"), f"{where}, column 'ref'"))


def _alpaca(row: Mapping[str, Any], where: str, wording: Wording | None) -> Completion | Conversation:
    instruction = text_in(row.get("instruction"), f"{where}, column 'instruction'")
    output = text_in(row.get("output"), f"{where}, column 'output'")
    given = row.get("input")
    given = (
        ""
        if given is None or (isinstance(given, str) and not given.strip())
        else text_in(given, f"{where}, column 'input'")
    )
    if wording is not None:
        return Completion(WORDINGS[wording](instruction, given), output)
    asked = f"{instruction}\n\n{given}" if given else instruction
    return Conversation(
        [{"role": "user", "content": asked}, {"role": "assistant", "content": output}], **told(row, where)
    )


def _from_sharegpt(value: Any, where: str) -> list[Message]:
    messages = read_messages(value, where, ("from", "value"))
    for index, message in enumerate(messages):
        if message["role"] not in _SPEAKERS:
            raise DataError(
                f"{where}, message {index}",
                expected=f"'from' as one of {', '.join(_SPEAKERS)}",
                got=f"'{message['role']}'",
            )
    return [{"role": _SPEAKERS[message["role"]], "content": message["content"]} for message in messages]


def told(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a row tells the chat template: `tools`, a list, and `options`, an object; None where it says nothing.

    Args:
        row: Values by column; both may be JSON texts, since tables cannot hold objects of different make.
        where: The file and row, for the message.

    Raises:
        DataError: A value is of the wrong type.
    """
    tools, options = (_json(row, column, where) for column in _TOLD)
    if tools is not None and not isinstance(tools, list):
        raise DataError(f"{where}, column 'tools'", expected="a list of tools", got=kind(tools))
    if options is not None and not isinstance(options, dict):
        raise DataError(f"{where}, column '{_TOLD[1]}'", expected="an object of options by name", got=kind(options))
    return {"tools": tools or None, "options": options or None}


def _json(row: Mapping[str, Any], column: str, where: str) -> Any:
    value = row.get(column)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise DataError(f"{where}, column '{column}'", expected="JSON", got=str(error)) from error


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(f"'{column}'" for column in columns) or "none"


_TEXTS: dict[Form, Callable[[Mapping[str, Any], str], Sample]] = {
    _COMPLETION: _completion,
    E2E: _meaning,
    _TEXT: _text,
}
"""Forms whose rows are texts."""

_FORMS = "; ".join(f"{form.name} ({', '.join(form.needs)})" for form in FORMS)
