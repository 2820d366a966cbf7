"""Prompts: from words, a file or a stream to the token ids that a model is asked with."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from randlora.errors import ConfigError, DataError
from randlora.tasks.language.conversation import kind, read_messages, text_in
from randlora.tasks.language.forms import told
from randlora.tasks.language.json_lines import json_records
from randlora.tasks.language.samples import Conversation
from randlora.tasks.language.templates import ChatTemplate
from randlora.tasks.paths import FILE, kind_of, local
from randlora.training.language.speaker import Speaker

Prompt: TypeAlias = str | Conversation
"""A text, or a conversation so far."""


def read_prompts(words: Sequence[str], file: str | None = None, stream: Iterable[str] = ()) -> list[Prompt]:
    """Gather prompts: those given as words, else those of the file, else the lines of the stream.

    Args:
        words: Prompts.
        file: A `.jsonl` file of objects with `prompt` (a text or messages) or `messages`, of which the assistant's last
            is left out, perhaps with `tools` and `chat_template_kwargs`; or a text file with a prompt in every line
            that is not blank.
        stream: Lines.

    Raises:
        ConfigError: Both words and a file are given, or there is no prompt.
        DataError: The file cannot be read, or a row of it has no prompt; the message names the line.
    """
    if words and file is not None:
        raise ConfigError("--file", expected="either prompts or a file of them", got="both")
    if file is not None:
        found = _from_file(file)
    else:
        found = list(words) or [line.rstrip("\r\n") for line in stream]
        found = [prompt for prompt in found if not isinstance(prompt, str) or prompt.strip()]
    if not found:
        raise ConfigError("prompts", expected="one or more", got="none", hint="as words, with --file, or on stdin")
    return found


def _from_file(name: str) -> list[Prompt]:
    path = local(name)
    if (kind := kind_of(path)) != FILE:
        raise DataError("--file", expected="a file of prompts", got=f"{name}, {kind}")
    try:
        if path.suffix.lower() in (".jsonl", ".json"):
            return [_of_record(record, f"{path}: {place}") for place, record, _ in json_records(path)]
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise DataError(str(path), expected="a file in UTF-8 that can be read", got=str(error)) from error


def _of_record(record: dict[str, Any], where: str) -> Prompt:
    name = next((name for name in ("prompt", "messages") if name in record), None)
    if name is None:
        got = ", ".join(f"'{key}'" for key in record) or "an empty object"
        raise DataError(where, expected="'prompt' or 'messages'", got=got)
    if isinstance(record[name], str):
        return text_in(record[name], f"{where}, '{name}'")
    if not isinstance(record[name], list):
        raise DataError(f"{where}, '{name}'", expected="a text or a list of messages", got=kind(record[name]))
    messages = read_messages(record[name], f"{where}, '{name}'")
    while messages and messages[-1]["role"] == "assistant":  # the answer that is asked for
        messages = messages[:-1]
    if not messages:
        raise DataError(where, expected="a message to answer", got="the assistant's alone")
    return Conversation(messages, **told(record, where))


def token_ids(
    speaker: Speaker, prompt: Prompt, where: str, *, system: str | None = None, raw: bool = False
) -> list[int]:
    """The token ids of a prompt as the model knows it from training.

    Args:
        speaker: The model.
        prompt: The prompt.
        where: Its place, for the message of an error.
        system: A system message before the others, if the prompt has none.
        raw: Whether to leave the chat template out.

    Raises:
        ConfigError: A system message is given for a model without chat template, or with `raw`.
        DataError: The template refuses the messages, messages meet no template, the prompt fills the context, or it has
            bytes that are no UTF-8, which Python hands on as halves of surrogate pairs.
    """
    if raw or (not speaker.chats and isinstance(prompt, str)):
        if system is not None:
            got = "--raw" if raw else "none"
            raise ConfigError("--system", expected="a chat template, which it is written with", got=got)
        if not isinstance(prompt, str):
            raise DataError(where, expected="a text, as with --raw there is no chat template", got="messages")
        ids = _ids_of_text(speaker.tokenizer, text_in(prompt, where))
    else:
        asked = Conversation([{"role": "user", "content": prompt}]) if isinstance(prompt, str) else prompt
        messages = asked.messages
        if system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        text = ChatTemplate(speaker.tokenizer, where, asked.tools, asked.options).render(messages, ask=True)
        ids = list(speaker.tokenizer(text_in(text, where), add_special_tokens=False)["input_ids"])
    if not ids or len(ids) >= speaker.context:
        expected = f"from 1 to {speaker.context - 1:,} tokens, within the model's context"
        raise DataError(where, expected=expected, got=f"{len(ids):,}")
    return ids


def _ids_of_text(tokenizer: Any, text: str) -> list[int]:
    """A text with the tokens that open it, and without the one that some tokenizers close it with."""
    ids = list(tokenizer(text)["input_ids"])
    bare = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] != bare[-1:] else ids
