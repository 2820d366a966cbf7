"""A conversation at the terminal: answers appear as they are made, and what was said is kept."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import TextStreamer

from randlora.errors import ConfigError, DataError
from randlora.messages import closest
from randlora.tasks.language.samples import Conversation, Message
from randlora.training.language.generation import Decoding
from randlora.training.language.prompts import token_ids
from randlora.training.language.speaker import Speaker

COMMANDS = ("/reset", "/system", "/exit")
HELP = "/reset begins anew, /system TEXT says how to answer, /exit ends; Ctrl-C stops an answer"


class Chat:
    """A conversation with a model.

    Args:
        speaker: The model.
        decoding: How tokens are chosen.
        write: Takes the pieces of an answer as they come.
        system: What the model is told before all.

    Raises:
        ConfigError: The model has no chat template.
    """

    def __init__(
        self, speaker: Speaker, decoding: Decoding, write: Callable[[str], object], system: str | None = None
    ) -> None:
        if not speaker.chats:
            hint = "randlora generate goes on from a text"
            raise ConfigError("chat", expected="a model with a chat template", got="one without", hint=hint)
        self._speaker, self._decoding, self._write = speaker, decoding, write
        self.system = system
        self.history: list[Message] = []
        torch.manual_seed(decoding.seed)

    def run(self, lines: Iterable[str]) -> None:
        """Answer line by line, and obey the lines that begin with `/`, until they end or one is `/exit`."""
        for line in lines:
            text = line.strip()
            if text == "/exit":
                return
            if text.startswith("/"):
                self._obey(text)
            elif text:
                try:
                    self.say(text)
                except DataError as error:  # too long, or refused by the template: the conversation goes on without it
                    self._write(f"{error}; {HELP}")
                self._write("\n")

    def say(self, text: str) -> str:
        """Answer a message. An interruption (Ctrl-C) ends the answer, and what was said of it is kept.

        Raises:
            DataError: The chat template refuses the messages, or they fill the context; nothing is kept then.
        """
        messages = [*self.history, {"role": "user", "content": text}]
        ids = token_ids(self._speaker, Conversation(messages), "the conversation", system=self.system)
        stream = _Stream(self._speaker.tokenizer, self._write)
        try:
            self._generate(ids, stream)
        except KeyboardInterrupt:
            stream.end()
        answer = "".join(stream.pieces)
        self.history = [*messages, {"role": "assistant", "content": answer}]
        return answer

    @torch.no_grad()
    def _generate(self, ids: list[int], stream: TextStreamer) -> None:
        inputs = torch.tensor([ids], device=self._speaker.model.device)
        room = min(self._decoding.max_new_tokens, self._speaker.context - len(ids))
        self._speaker.model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=room,
            streamer=stream,
            **self._decoding.arguments(),
        )

    def _obey(self, text: str) -> None:
        command, _, rest = text.partition(" ")
        if command == "/reset":
            self.history = []
        elif command == "/system":
            self.system, self.history = rest.strip() or None, []
        else:
            near = closest(command, COMMANDS)
            self._write(f"{command} is unknown{f', did you mean {near}?' if near else ''}; {HELP}\n")


class _Stream(TextStreamer):
    """Hands on the pieces of an answer, and keeps them."""

    def __init__(self, tokenizer: Any, write: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.pieces: list[str] = []
        self._hand_on = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
        self.pieces.append(text)
        self._hand_on(text)
