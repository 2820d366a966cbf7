"""Every common form is known by its columns and read to the same samples; what is wrong is said in one line."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.errors import DataError
from randlora.tasks.language import FORMS, Completion, Conversation, Preference, Text, normalise, recognise
from randlora.tasks.language.alpaca import alpaca, llm_adapters

USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
WORSE = {"role": "assistant", "content": "c"}


def read(row, **options):
    return normalise(row, recognise(row, "data.jsonl", options.pop("form", None)), "data.jsonl: line 3", **options)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_is_known_by_its_columns(form):
    assert recognise([*form.needs, *form.may, "id", "source"], "f") is form
    assert recognise(form.needs, "f") is form


@pytest.mark.parametrize(
    ("row", "sample"),
    [
        ({"text": "a"}, Text("a")),
        ({"messages": [USER, ANSWER]}, Conversation([USER, ANSWER])),
        ({"messages": [USER, ANSWER], "tools": '[{"name": "t"}]'}, Conversation([USER, ANSWER], tools=[{"name": "t"}])),
        (
            {"prompt": [USER], "completion": [ANSWER], "chat_template_kwargs": {"enable_thinking": False}},
            Conversation([USER, ANSWER], given=1, options={"enable_thinking": False}),
        ),
        (
            {"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE], "chat_template_kwargs": '{"a": 1}'},
            Preference([USER], [ANSWER], [WORSE], options={"a": 1}),
        ),
        ({"messages": [USER, {**ANSWER, "name": None}]}, Conversation([USER, ANSWER])),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, Conversation([USER, {**ANSWER, "weight": 0}])),
        ({"prompt": "a", "completion": "b"}, Completion("a", "b")),
        ({"prompt": [USER], "completion": [ANSWER]}, Conversation([USER, ANSWER], given=1)),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            Conversation([USER, ANSWER]),
        ),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, Preference("a", "b", "c")),
        (
            {"prompt": [USER], "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "c"}]},
            Preference([USER], [ANSWER], [{**ANSWER, "content": "c"}]),
        ),
        (
            {"chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "c"}]},
            Preference([USER], [ANSWER], [{**ANSWER, "content": "c"}]),
        ),
        (
            {"prompt": "a", "chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "c"}]},
            Preference([USER], [ANSWER], [{**ANSWER, "content": "c"}]),
        ),
        (
            {"prompt": "a", "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "c"}]},
            Preference([USER], [ANSWER], [{**ANSWER, "content": "c"}]),
        ),
        ({"chosen": "Q: who? A: me", "rejected": "Q: who? A: my dog"}, Preference("Q: who? A:", " me", " my dog")),
        ({"chosen": "Q\n\nA:\nyes", "rejected": "Q\n\nA:\nyet"}, Preference("Q\n\nA:\n", "yes", "yet")),
    ],
)
def test_rows_are_read_to_samples(row, sample):
    assert read(row) == sample


def test_tool_calls_are_left_as_they_are():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"n": 1}}}]}
    messages = [USER, call, {"role": "tool", "content": "2", "name": "f"}, ANSWER]
    assert read({"messages": messages}).messages == [USER, {**call, "content": ""}, *messages[2:]]


@given(instruction=st.text("ab {}\n", min_size=1).filter(str.strip), given_text=st.sampled_from([None, "", "{input}"]))
def test_instructions_take_the_wording_asked_for(instruction, given_text):
    row = {"instruction": instruction, "input": given_text, "output": "o"}
    assert read(row) == Completion(alpaca(instruction, given_text or ""), "o")
    assert read(row, wording="llm_adapters") == Completion(llm_adapters(instruction, given_text or ""), "o")
    asked = f"{instruction}\n\n{given_text}" if given_text else instruction
    assert read(row, wording=None).messages == [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "o"},
    ]


def test_the_wordings_to_the_letter():
    assert alpaca("Do.", "It.") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nDo.\n\n### Input:\nIt.\n\n### Response:\n"
    )
    margin = " " * 16
    assert llm_adapters("Do.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        f"  # noqa: E501\n\n{margin}### Instruction:\n{margin}Do.\n{margin}\n{margin}### Response:\n{margin}"
    )


FORM_LIST = "messages (messages); completion (prompt, completion); "


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        (["a", "b"], None, f"data.csv: expected the columns of one form: {FORM_LIST}.*, got 'a', 'b'"),
        ([], None, "got none"),
        (["text", "messages"], None, "got those of 'messages' and 'text'"),
        (
            ["instruction", "output", "text"],
            None,
            "got those of 'alpaca' and 'text' .*name the form: data.train: [{source: ",
        ),
        (["messages", "images"], None, "got 'images' beside them .*form: messages"),
        (["prompt", "chosen", "rejected", "messages"], None, "those of 'messages' and 'prompt', 'chosen', 'rejected'"),
        (["text"], "alpaca", "expected the columns of the form 'alpaca'"),
    ],
)
def test_columns_of_no_form_or_of_two(columns, named, message):
    with pytest.raises(DataError, match=re.sub(r"([()[{])", r"\\\1", message)) as raised:
        recognise(columns, "data.csv", named)
    assert "\n" not in str(raised.value)


def test_a_form_can_be_named():
    assert read({"instruction": "i", "output": "o", "text": "t"}, form="text") == Text("t")
    assert read({"text": "t", "image": "i.png"}, form="text") == Text("t")


def test_texts_that_come_in_parts_are_joined():
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
    asked, whole = {**USER, "content": parts}, {**USER, "content": "What now?"}
    assert read({"messages": [asked, ANSWER]}) == read({"messages": [whole, ANSWER]})
    other = {**ANSWER, "content": "c"}
    pairs = [{"chosen": [user, ANSWER], "rejected": [user, other]} for user in (asked, whole)]
    assert read(pairs[0]) == read(pairs[1])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": None}, "line 3, column 'text': expected a text, got nothing"),
        ({"text": " \n"}, "expected a text, got an empty one"),
        ({"text": 3}, "got a number"),
        ({"text": "\ud800"}, "got one with half of a surrogate pair"),
        ({"messages": "hi"}, "line 3, column 'messages': expected a list of messages, got a text"),
        ({"messages": []}, "got an empty one"),
        ({"messages": ["hi"]}, "message 0: expected an object with 'role' and 'content', got a text"),
        ({"messages": [{"from": "human", "value": "a"}]}, "got 'from', 'value'"),
        ({"messages": [USER, {**ANSWER, "weight": 0.5}]}, "message 1, 'weight': expected 0 or 1, got 0.5"),
        ({"messages": [USER, {**ANSWER, "content": ""}]}, "message 1, 'content': expected a text, got an empty one"),
        ({"messages": [USER, {**ANSWER, "content": [{"type": "text"}]}]}, "part 0: expected .* its 'text'"),
        (
            {"messages": [{**USER, "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}, ANSWER]},
            "message 0, 'content', part 1: expected a part of type 'text' .*, got one of type 'image_url'",
        ),
        ({"messages": [USER, {**ANSWER, "content": []}]}, "got an empty one"),
        ({"messages": [USER, {**ANSWER, "content": ["a"]}]}, "part 0: expected .* got a text"),
        ({"messages": [ANSWER]}, "message 0: expected a message of system or user, got one of 'assistant'"),
        ({"messages": [USER, USER]}, "message 1: expected a message of assistant, got one of 'user'"),
        ({"messages": [USER, ANSWER, {**USER, "role": "system"}]}, "message 2: .* 'system'"),
        ({"messages": [USER, {**USER, "role": "wizard"}]}, "got one of 'wizard'"),
        ({"messages": [USER, ANSWER, USER]}, "expected the assistant's message at the end, got the user's"),
        ({"messages": [USER, {"role": "tool", "content": "x"}, ANSWER]}, "got one of 'tool'"),
        ({"messages": [USER, ANSWER], "tools": "{"}, "column 'tools': expected JSON"),
        ({"messages": [USER, ANSWER], "tools": {"a": 1}}, "expected a list of tools, got an object"),
        (
            {"messages": [USER, ANSWER], "chat_template_kwargs": [1]},
            "column 'chat_template_kwargs': expected an object",
        ),
        ({"prompt": "a", "completion": [ANSWER]}, "both as lists of messages, got a text and a list"),
        ({"prompt": "a", "completion": ""}, "column 'completion': expected a text, got an empty one"),
        ({"instruction": "a", "input": "b", "output": None}, "column 'output': expected a text, got nothing"),
        ({"conversations": [{"from": "bot", "value": "a"}]}, "expected 'from' as one of human, .*, got 'bot'"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "message 0: .* 'assistant'"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "two answers of which one is better"),
        ({"prompt": "a", "chosen": [ANSWER], "rejected": "b"}, "got a list, a text and a text"),
        ({"chosen": "yes", "rejected": "no"}, "begin with the same prompt .* 0 characters in common"),
        ({"chosen": [USER, ANSWER], "rejected": [{**USER, "content": "c"}, ANSWER]}, "0 messages in common of 2 and 2"),
        (
            {"prompt": "z", "chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "c"}]},
            "column 'prompt': expected one of the messages",
        ),
        ({"prompt": [USER], "chosen": [USER], "rejected": [ANSWER]}, "'prompt' and 'chosen', message 1: expected"),
    ],
)
def test_wrong_rows_are_named_in_one_line(row, message):
    with pytest.raises(DataError, match=message) as raised:
        read(row)
    assert str(raised.value).startswith("data.jsonl: line 3")
    assert "\n" not in str(raised.value)
