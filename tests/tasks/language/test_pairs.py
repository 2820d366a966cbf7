"""Preferences: the prompt once as at inference, the answers to the character, and what cutting takes is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.errors import DataError
from randlora.tasks.language import Preference, Text, encode, encode_preferences

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<>"), min_size=1, max_size=12)
LOOSE = WORDS.filter(str.strip)
TRIO = st.tuples(LOOSE, LOOSE, LOOSE).filter(lambda trio: trio[1].strip() != trio[2].strip())


def encode_one(tokenizer, sample, **options):
    row = encode_preferences(tokenizer, [("here", sample)], **options).rows[0]
    return row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]


def said(role, text):
    return [{"role": role, "content": text}]


@given(trio=TRIO, bos=st.booleans())
def test_texts(chats, trio, bos):
    tokenizer = chats.make(bos=bos)
    prompt, chosen, rejected = encode_one(tokenizer, Preference(*trio))
    assert prompt == tokenizer(trio[0])["input_ids"]
    assert [tokenizer.decode(ids) for ids in (chosen, rejected)] == [f"{answer}<eos>" for answer in trio[1:]]


@pytest.mark.parametrize("name", ["chatml", "llama", "gemma", "closed by eos", "forgets thinking"])
@given(trio=TRIO, bos=st.booleans())
def test_messages(chats, name, trio, bos):
    tokenizer = chats.make(name, bos=bos)
    asked = said("user", trio[0])
    pair = Preference(asked, said("assistant", trio[1]), said("assistant", trio[2]))
    prompt, chosen, rejected = encode_one(tokenizer, pair)
    assert prompt == tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    lead, end = (" " if name == "closed by eos" else ""), chats.ends.get(name, "<|close|>")
    answers = [answer.strip() if name in chats.trims else answer for answer in trio[1:]]
    assert [tokenizer.decode(ids) for ids in (chosen, rejected)] == [f"{lead}{answer}{end}" for answer in answers]


def test_a_template_that_changes_the_prompt_is_refused(chats):
    template = "{% for m in messages %}{{ m['content'] }}|{% endfor %}{% if add_generation_prompt %}?{% endif %}"
    pair = Preference(said("user", "a"), said("assistant", "b"), said("assistant", "c"))
    with pytest.raises(DataError, match=r"^here: expected a chat template that renders the prompt"):
        encode_one(chats.make(template), pair)


def test_what_is_cut_is_counted_or_refused(chats):
    tokenizer = chats.make()
    samples = [("row 0", Preference("a b c d e f", " g", " h")), ("row 1", Preference("x", " y z", " y w"))]
    with pytest.raises(DataError, match=r"^row 0: expected answers that begin to differ .* drop_empty\)$"):
        encode_preferences(tokenizer, samples, max_length=4)
    cut = encode_preferences(tokenizer, samples, max_length=4, drop_empty=True)
    whole = encode_preferences(tokenizer, samples).rows[1]
    assert (cut.dropped, len(cut.rows)) == (1, 1)
    assert cut.rows[0]["chosen_ids"] == whole["chosen_ids"][: 4 - len(whole["prompt_ids"])]


def test_kinds_are_not_mistaken(chats):
    with pytest.raises(DataError, match="here: expected a preference"):
        encode_preferences(chats.make(), [("here", Text("a"))])
    with pytest.raises(DataError, match="here: expected an example to imitate"):
        encode(chats.make(), [("here", Preference("a", "b", "c"))])


def test_answers_that_a_template_makes_equal_are_refused(chats):
    pair = Preference(said("user", "a"), said("assistant", "b"), said("assistant", "b "))
    with pytest.raises(DataError, match=r"^here: expected two answers .* got the same tokens"):
        encode_one(chats.made["llama"], pair)
