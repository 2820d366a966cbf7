"""An answer ends with the tokens that training ends the assistant's turns with, whoever knows of them."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

from randlora.tasks.language import Conversation, encode
from randlora.tasks.language.generation import ends

OF_ROLES = (
    "{% for m in messages %}{{ '<|head|>' if m['role'] == 'user' else '<|tail|>' }}{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|tail|>{% endif %}"
)
OTHERWISE_AT_LAST = (
    "{% for m in messages %}<|open|>{{ m['role'] }}\n{{ m['content'] }}"
    "{{ '<|tail|>' if loop.last and m['role'] == 'assistant' else '<|close|>' }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
)
TEMPLATES = {
    "chatml": {"<|close|>"},
    "gemma": {"<|close|>"},
    "marked": {"<|close|>"},
    "forgets thinking": {"<|close|>"},
    "closed by eos": set(),
    "unclosed": set(),
    OF_ROLES: {"<|head|>"},
    OTHERWISE_AT_LAST: {"<|close|>", "<|tail|>"},
    "{{ raise_exception('no') }}": set(),
}


def model(eos):
    return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=eos))


@pytest.mark.parametrize("template", [None, *TEMPLATES])
@pytest.mark.parametrize("known", [None, 2, [2, 0]])
def test_ends_are_those_known_and_the_templates(chats, template, known):
    tokenizer = chats.make(template)
    listed = known if isinstance(known, list) else [2]
    wanted = {*listed, *tokenizer.convert_tokens_to_ids(list(TEMPLATES.get(template, ())))}
    found = ends(model(known), tokenizer)
    assert set(found) == wanted
    assert len(found) == len(wanted)


@pytest.mark.parametrize("template", [name for name in TEMPLATES if "raise" not in name])
def test_every_learned_turn_has_an_end(chats, template):
    tokenizer = chats.make(template)
    talk = [{"role": role, "content": "yes"} for role in ("user", "assistant") * 3]
    (row,) = encode(tokenizer, [("here", Conversation(talk))]).rows
    labels = [*row["labels"], -100]
    last = [label for label, after in pairwise(labels) if label != -100 and after == -100]
    assert last
    if template != "unclosed":  # its inner turns end with nothing, and are learned so
        assert set(last) <= set(ends(model(None), tokenizer))
