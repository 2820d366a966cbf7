"""Conversations: streamed, remembered, begun anew, interrupted."""

from dataclasses import replace

import pytest

from randlora.errors import ConfigError
from randlora.tasks.language import Conversation
from randlora.training.language import Chat, Decoding, generate, load_speaker
from randlora.training.language.prompts import token_ids


@pytest.fixture(scope="module")
def speaker(spoken_run):
    return load_speaker(str(spoken_run))


def test_an_answer_comes_in_pieces_and_is_that_of_generate(speaker):
    pieces = []
    answer = Chat(speaker, Decoding(12), pieces.append).say("abc")
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces) == answer == generate(speaker, [token_ids(speaker, "abc", "here")], Decoding(12))[0]


def test_what_was_said_is_asked_with_again(speaker):
    chat = Chat(speaker, Decoding(8), lambda _: None)
    first = chat.say("abc")
    messages = [{"role": "user", "content": "abc"}, {"role": "assistant", "content": first}]
    second = chat.say("d")
    asked = token_ids(speaker, Conversation([*messages, {"role": "user", "content": "d"}]), "here")
    assert second == generate(speaker, [asked], Decoding(8))[0]
    assert [message["role"] for message in chat.history] == ["user", "assistant"] * 2


def test_commands(speaker):
    shown = []
    chat = Chat(speaker, Decoding(4), shown.append, "be")
    chat.run(["abc\n", "/reset\n", "\n"])
    assert chat.history == []
    assert chat.system == "be"
    chat.run(["/system do it\n", "/sistem\n", "abc\n", "/exit\n", "never\n"])
    assert chat.system == "do it"
    assert any("did you mean /system" in text for text in shown)
    assert [message["content"] for message in chat.history][::2] == ["abc"]


def test_ctrl_c_ends_the_answer_and_keeps_what_was_said(speaker):
    pieces = []

    def write(text):
        pieces.append(text)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    chat = Chat(speaker, Decoding(20, temperature=1.0), write)
    chat.say("abc")
    assert chat.history[-1] == {"role": "assistant", "content": "".join(pieces)}
    assert len(pieces) < 8


@pytest.mark.parametrize(
    ("message", "said"), [("a" * 200, "within the model's context"), ("a\udcff", "half of a surrogate pair")]
)
def test_a_message_that_does_not_fit_is_said_and_forgotten(speaker, message, said):
    shown = []
    chat = Chat(speaker, Decoding(4), shown.append)
    chat.run([message, "abc"])
    assert said in "".join(shown)
    assert len(chat.history) == 2


def test_a_model_without_chat_template_cannot_chat(speaker):
    import copy

    tokenizer = copy.deepcopy(speaker.tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="chat template"):
        Chat(replace(speaker, tokenizer=tokenizer), Decoding(4), print)
