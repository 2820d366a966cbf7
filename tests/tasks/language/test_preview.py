"""Numbers of a set are counted by hand, and what is shown of an example obeys no terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.tasks.language import (
    Completion,
    Preference,
    Text,
    encode,
    encode_preferences,
    show_example,
    statistics,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<>⟦⟧"), min_size=1).filter(str.strip)


@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=30), max_length=st.integers(3, 12))
def test_numbers_are_those_counted(chats, texts, max_length):
    samples = [("here", Completion(*pair)) for pair in texts]
    encoded = encode(chats.make(), samples, max_length=max_length, drop_empty=True)
    numbers = statistics(encoded)
    lengths = sorted(len(row["input_ids"]) for row in encoded.rows)
    assert numbers.examples == len(lengths) == len(texts) - numbers.dropped
    assert numbers.tokens == sum(lengths)
    assert numbers.trained == sum(label != -100 for row in encoded.rows for label in row["labels"])
    if lengths:
        assert (numbers.shortest, numbers.longest) == (lengths[0], lengths[-1])
        assert numbers.median == lengths[(len(lengths) - 1) // 2]
        assert sum(length <= numbers.p95 for length in lengths) >= 0.95 * len(lengths)
        assert sum(length < numbers.p95 for length in lengths) < 0.95 * len(lengths)
    assert "\n" not in str(numbers)


def test_preferences_count_a_prompt_twice(chats):
    tokenizer = chats.make()
    encoded = encode_preferences(tokenizer, [("here", Preference("The capital", " of France", " of Paris and more"))])
    (row,) = encoded.rows
    prompt, chosen, rejected = (len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    numbers = statistics(encoded)
    assert numbers.tokens == 2 * prompt + chosen + rejected
    assert numbers.trained == chosen + rejected
    assert numbers.longest == prompt + max(chosen, rejected)


@given(prompt=TEXTS, completion=TEXTS)
def test_the_learned_part_is_marked(chats, prompt, completion):
    tokenizer = chats.make(bos=True)
    row = encode(tokenizer, [("here", Completion(prompt, completion))]).rows[0]
    shown = show_example(tokenizer, row["input_ids"], row["labels"])
    before, marked = shown.removesuffix("⟧").split("⟦")
    assert before.startswith("<bos>")
    assert marked.endswith("<eos>")
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    if (prompt + completion).replace("\n", "").isprintable():
        assert (before, marked) == (f"<bos>{prompt}", f"{completion}<eos>")


def test_nothing_of_an_example_reaches_the_terminal_as_a_command(chats):
    tokenizer = chats.make()
    row = encode(tokenizer, [("here", Text("x\x1b[31mred\r\nnext"))]).rows[0]
    assert show_example(tokenizer, row["input_ids"], row["labels"]) == "x⟦\\x1b[31mred\\r\nnext<eos>⟧"
    assert show_example(tokenizer, row["input_ids"], row["labels"], colour=True).startswith("x\x1b[4;32m\\x1b[31m")


@pytest.mark.parametrize(("cut", "words"), [(3, "cut at max_length"), (30, "")])
def test_numbers_are_said_in_a_line(chats, cut, words):
    line = str(statistics(encode(chats.make(), [("here", Text("a b c d e f"))], max_length=cut)))
    assert line.startswith("1 examples of")
    assert words in line
