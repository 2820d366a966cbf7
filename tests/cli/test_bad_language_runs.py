"""Language runs that cannot be: one line that says what is wrong, exit code 2, and nothing left behind."""

import importlib.util
import json
import re
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from randlora.errors import DataError
from randlora.tasks.language import Source, mix
from refusals import ANSWER, CHAT, PAIR, PLAIN, USER, assert_says, refused

ROWS = {
    "no known columns": ([{"question": "a", "answer": "b"}], r"one form: messages .*text \(text\), got 'question'"),
    "messages, then prompts": ([CHAT, PLAIN], r"line 2: expected the form 'messages', as in line 1, got 'completion'"),
    "texts, then messages": ([{"text": "a"}] * 3 + [CHAT], r"line 4: expected the form 'text', as in line 1"),
    "a row of no form": ([CHAT, {"question": "a"}], "line 2, column 'messages': expected a list of messages"),
    "an answer alone": ([CHAT, {"messages": [ANSWER, USER]}], "line 2, message 0: expected a message of system or"),
    "a role of no one": ([{"messages": [{**USER, "role": "bot"}, ANSWER]}], "line 1, message 0: .* one of 'bot'"),
    "a prompt that fills max_length": (
        [{"prompt": "a" * 80, "completion": "b"}],
        "line 1: expected a token to train on",
    ),
    "nothing but an end": ([CHAT, {"messages": [USER, {**ANSWER, "content": " "}]}], "line 2, .*got an empty one"),
    "an end token as answer": ([{"prompt": "a", "completion": "</s>"}], "line 1: expected a text before its end"),
    "a number as content": ([{"messages": [USER, {**ANSWER, "content": 3}]}], "line 1, .*'content': .* got a number"),
    "a list as content": ([{"messages": [USER, {**ANSWER, "content": ["a"]}]}], "part 0: expected .* got a text"),
    "an empty prompt": ([{"prompt": "", "completion": "a"}], "line 1, column 'prompt': expected a text, got an empty"),
    "no prompt": ([{"prompt": None, "completion": "a"}], "line 1, column 'prompt': expected a text, got nothing"),
    "a number without end": (b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "line 1: .* a number of thousands of digits"),
    "an object of arrays": (json.dumps({"text": ["a", "b"]}).encode(), "line 1, column 'text': .* got a list"),
    "a line that breaks off": (json.dumps(CHAT).encode() + b'\n{"messages": [', "line 2: expected a JSON array"),
    "a line of other bytes": (json.dumps(CHAT).encode() + b"\n\xff\xfe\n", "line 2: expected text in UTF-8"),
    "a line of nulls": (b"\n" + json.dumps(CHAT).encode() + b"\n\0\0\n", "line 3: expected text in UTF-8"),
    "a row that is a list": (json.dumps(CHAT).encode() + b"\n[1]\n", "line 2: expected an object"),
    "a row that is null": (json.dumps(CHAT).encode() + b"\nnull\n", "line 2: expected an object"),
    "lists without end": (b'{"messages":' + b"[" * 100_000, "line 1: .*without end"),
    "blank lines": (b"\n \n", "expected at least one row"),
    "nothing": (b"", "which is empty"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(ask, capsys, name):
    rows, message = ROWS[name]
    assert_says(refused(capsys, *ask(rows)), message)


PAIRS = {
    "twice the same": ([PAIR, {**PAIR, "rejected": "b"}], "line 2: expected two answers of which one is better"),
    "the same tokens": ([{**PAIR, "chosen": "é", "rejected": "ü"}], "line 1: .* the same tokens for both"),
    "an empty prompt": ([{**PAIR, "prompt": ""}], "line 1, column 'prompt': expected a text, got an empty one"),
    "a number": ([{**PAIR, "chosen": 3}], "line 1, column 'chosen': expected a text, got a number"),
    "examples to imitate": ([CHAT], "got messages .*task: sft"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(ask, capsys, name):
    rows, message = PAIRS[name]
    assert_says(refused(capsys, *ask(rows, "preference")), message)


TEMPLATES = {
    "{% for m in messages %}{{ m.content": "the chat template: expected one in Jinja, got line 1: unexpected end",
    "{{ raise_exception('no\nway') }}": "line 1: expected messages that .*TemplateError: no way",
    "{{ nothing.at_all }}": "UndefinedError: 'nothing' is undefined",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
    "": "line 1, message 1: expected a chat template that writes what the messages say",
    "hello": "line 1, message 1: expected a chat template that writes what the messages say",
    "{% for m in messages %}{{ m.role }}{% endfor %}": "line 1, message 1: .* leaves this one out",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_chat_templates(ask, capsys, tmp_path, template):
    (tmp_path / "template.jinja").write_text(template, encoding="utf-8")
    words = ask(data__chat_template_path=str(tmp_path / "template.jinja"))
    assert_says(refused(capsys, *words), TEMPLATES[template])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data__max_length": 4096}, r"data\.max_length: expected at most 128, the model's context"),
        ({"quantization": "nf4", "method": {"name": "full"}}, "quantization: expected none with full"),
        ({"quantization": "int8", "method": {"name": "full"}}, "quantization: expected none with full"),
        ({"optimization__precision": "fp16"}, r"optimization\.precision: expected fp32 or bf16 without a GPU"),
        (
            {"method": {"name": "lora", "target_modules": ["q_proj", "lm_head"]}},
            r"method\.target_modules: expected layers before the output embeddings.*, got 'lm_head' \(leave it out\)",
        ),
        ({"start_from": "nowhere"}, "start_from: expected the folder of a finished run"),
        ({"data__validation": 9}, r"data\.validation: expected a share between 0 and 1"),
        ({"data__chat_template_path": "."}, r"data\.chat_template_path: expected a file"),
        ({"data__assistant_only_loss": "first"}, "assistant_only_loss: expected true or false or 'last', got 'first'"),
        ({"data__chat_template_path": ""}, r"data\.chat_template_path: expected a file .*got '', a folder"),
        ({"data__chat_template_path": "/dev/zero"}, r"chat_template_path: expected a file .*, a device"),
        ({"model": "./absent.gguf"}, r"model: expected .*got .*absent\.gguf"),
        ({"data__metrics": ["exact_match"]}, r"data\.metrics: expected examples to score answers on, got none"),
        ({"data__train": "."}, r"data\.train: expected a data file or a hub name, got \., a folder"),
        ({"task": "preference", "data__beta": 0}, r"data\.beta: expected a number above 0, got 0"),
        ({"data__cutoff_len": 60}, r"data\.max_length: expected one value, got two, under two names"),
    ],
)
def test_keys(ask, capsys, keys, message):
    if "precision" in message and torch.cuda.is_available():
        pytest.skip("with a GPU there is fp16")
    assert_says(refused(capsys, *ask(**keys)), message)


@pytest.mark.parametrize("keys", [{"split": "test"}, {"subset": "en"}])
def test_a_part_of_a_file(ask, capsys, tmp_path, keys):
    words = ask(data__train=[{"source": str(tmp_path / "train.jsonl"), **keys}])
    message = r"data\.train: expected a split or a subset with hub names only, got '(test|en)'"
    assert_says(refused(capsys, *words), message)


@pytest.mark.parametrize(
    ("package", "keys", "message"),
    [
        ("bitsandbytes", {"quantization": "nf4"}, r"the package bitsandbytes, .*randlora\[quantized\]"),
        ("torchao", {"quantization": "int8"}, r"the package torchao, .*randlora\[quantized\]"),
        ("gguf", {"model": "model.gguf"}, "the package gguf, .*pip install gguf"),
        ("trl", {}, r"package 'trl': expected to be installed \(pip install 'randlora\[train\]'\)"),
        ("datasets", {}, r"package 'datasets': expected to be installed"),
    ],
)
def test_missing_packages(ask, capsys, tmp_path, monkeypatch, package, keys, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    known = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == package else known(name, *more))
    monkeypatch.setitem(sys.modules, package, None)
    assert_says(refused(capsys, *ask(**{key: f"./{v}" if key == "model" else v for key, v in keys.items()})), message)


COLUMNS = st.sampled_from(
    [
        "messages",
        "prompt",
        "completion",
        "text",
        "chosen",
        "rejected",
        "instruction",
        "output",
        "conversations",
        "tools",
    ]
)
MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "from", "value", "tool_calls"]),
    st.sampled_from(["user", "assistant", "system", "human", "gpt", "x", "", None, 3]) | st.lists(st.none()),
    max_size=3,
)
CELLS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(MESSAGE, max_size=3)


@given(rows=st.lists(st.dictionaries(COLUMNS, CELLS, max_size=4), min_size=1, max_size=3))
def test_rows_of_any_make_are_read_or_refused_in_one_line(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    refusal = None
    try:
        pool, _ = mix([Source(str(path))])
        assert len(list(pool)) == len(rows)
    except DataError as error:
        refusal = error
    if refusal is not None:
        assert_says(str(refusal), rf"\A{re.escape(str(path))}.*: expected .*\Z")
