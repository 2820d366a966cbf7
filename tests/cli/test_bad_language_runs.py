"""Language runs that cannot be: one line that says what is wrong, exit code 2, and nothing left behind."""

import importlib.util
import json
import re
import shutil
import sys

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from randlora.cli import main
from randlora.errors import DataError
from randlora.tasks.language import Source, mix
from refusals import refused

WEIGHT = "model.layers.0.self_attn.q_proj.weight"
USER, ANSWER = {"role": "user", "content": "abc"}, {"role": "assistant", "content": "abc abc"}
CHAT = {"messages": [USER, ANSWER]}
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
PLAIN = {"prompt": "a", "completion": "b"}


def assert_says(line, message):
    assert re.search(message, line), line


@pytest.fixture
def ask(llama, tmp_path, monkeypatch):
    """Write rows and a config, with more keys by their dotted names; the words that train it."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    work = tmp_path / "work"
    work.mkdir()

    def words(rows=(CHAT,) * 4, task="sft", name="train.jsonl", **keys):
        content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / name).write_bytes(content)
        optimization = {"epochs": 1, "batch_size": 4, "precision": "fp32", "device": "cpu"}
        data = {"train": str(tmp_path / name), "max_length": 64, "general": False}
        config = {"task": task, "model": str(llama), "method": {"r": 4}, "data": data, "optimization": optimization}
        for key, value in keys.items():
            section, _, last = key.rpartition("__")
            (config[section] if section else config)[last] = value
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        return "train", tmp_path / "config.yaml", "--output", work / "run"

    yield words
    assert [path.name for path in work.iterdir()] == []


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
    "a list as content": ([{"messages": [USER, {**ANSWER, "content": ["a"]}]}], "expected a text, got a list"),
    "an empty prompt": ([{"prompt": "", "completion": "a"}], "line 1, column 'prompt': expected a text, got an empty"),
    "no prompt": ([{"prompt": None, "completion": "a"}], "line 1, column 'prompt': expected a text, got nothing"),
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


@pytest.fixture
def model(llama, tmp_path):
    """A copy of the tiny model, to be spoilt."""
    return shutil.copytree(llama, tmp_path / "model")


def edit(path, **keys):
    content = json.loads(path.read_text(encoding="utf-8"))
    changed = {key: value for key, value in {**content, **keys}.items() if value is not None}
    path.write_text(json.dumps(changed), encoding="utf-8")


def renumbered(folder, token, number):
    """The part of a tokenizer's file with its words, one of them with another number."""
    part = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    return {**part, "vocab": {**part["vocab"], token: number}}


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def put(folder, model):
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
MODELS = {
    "no end of a text": (
        lambda m: edit(m / "tokenizer_config.json", eos_token=None),
        "a tokenizer with an end-of-text",
    ),
    "more words than rows": (
        lambda m: put(m, LlamaForCausalLM(LlamaConfig(vocab_size=20, **SMALL))),
        "numbers below 20, as many words as the model knows, got number 74 for",
    ),
    "a number beyond the rows": (
        lambda m: edit(m / "tokenizer.json", model=renumbered(m, "z", 99)),
        "numbers below 75, as many words as the model knows, got number 99 for 'z'",
    ),
    "a tensor missing": (lambda m: edit_weights(m, lambda t: t.pop(WEIGHT)), f"whole, got no {WEIGHT}"),
    "a tensor of another shape": (
        lambda m: edit_weights(m, lambda t: t.update({WEIGHT: torch.zeros(3, 3)})),
        rf"{WEIGHT} of \(3, 3\) and not \(64, 64\)",
    ),
    "an encoder": (
        lambda m: put(m, BertModel(BertConfig(vocab_size=75, **SMALL))),
        "of a BertLMHeadModel .* got no cls",
    ),
    "weights cut short": (lambda m: (m / "model.safetensors").write_bytes(b"\x08" * 99), "weights can be loaded"),
    "a broken config": (lambda m: (m / "config.json").write_text("{"), "can be loaded"),
    "a broken tokenizer": (lambda m: (m / "tokenizer.json").write_text("{"), "tokenizer can be loaded"),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(ask, capsys, model, name):
    spoil, message = MODELS[name]
    spoil(model)
    assert_says(refused(capsys, *ask([PLAIN] * 4, model=str(model))), message)


@pytest.mark.parametrize("name", ["no end of a text", "more words than rows", "a number beyond the rows"])
def test_models_whose_data_are_shown_or_that_speak(ask, capsys, model, name):
    spoil, message = MODELS[name]
    spoil(model)
    _, config, *_ = ask([PLAIN] * 4, model=str(model))
    assert_says(refused(capsys, "data", config), message)
    assert_says(refused(capsys, "generate", model, "z"), message)


def test_weights_that_are_not_finite(ask, capsys, model):
    edit_weights(model, lambda tensors: tensors[WEIGHT].fill_(torch.nan))
    assert main([str(word) for word in ask(model=str(model))]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "model: expected finite weights, got NaN or infinity in" in last


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data__max_length": 4096}, r"data\.max_length: expected at most 128, the model's context"),
        ({"quantization": "nf4", "method": {"name": "full"}}, "quantization: expected none with full"),
        ({"quantization": "int8", "method": {"name": "full"}}, "quantization: expected none with full"),
        ({"optimization__precision": "fp16"}, r"optimization\.precision: expected fp32 or bf16 without a GPU"),
        ({"start_from": "nowhere"}, "start_from: expected the folder of a finished run"),
        ({"data__validation": 9}, r"data\.validation: expected a share between 0 and 1"),
        ({"data__chat_template_path": "."}, r"data\.chat_template_path: expected a file"),
        ({"data__assistant_only_loss": "first"}, "assistant_only_loss: expected true or false or 'last', got 'first'"),
        ({"model": "./absent.gguf"}, r"model: expected .*got .*absent\.gguf"),
    ],
)
def test_keys(ask, capsys, keys, message):
    if "precision" in message and torch.cuda.is_available():
        pytest.skip("with a GPU there is fp16")
    assert_says(refused(capsys, *ask(**keys)), message)


def test_a_model_with_nothing_to_quantize(ask, capsys, model):
    pytest.importorskip("torchao")
    put(model, GPT2LMHeadModel(GPT2Config(vocab_size=75, n_positions=128, n_embd=16, n_layer=1, n_head=2)))
    words = ask(model=str(model), quantization="int8")
    assert_says(refused(capsys, *words), "linear layers that torchao quantizes, got none in GPT2LMHeadModel")


@pytest.mark.parametrize("content", [b"", b"hello" * 100, b"GGUF" + bytes(200), b"GGUF\x03\0\0\0" + b"\xff" * 300])
def test_broken_gguf_files(ask, capsys, tmp_path, content):
    (tmp_path / "model.gguf").write_bytes(content)
    message = refused(capsys, *ask(model=str(tmp_path / "model.gguf")))
    assert "whole GGUF file" in message or "the package gguf" in message


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


@pytest.mark.slow
def test_a_start_that_is_unfinished_or_of_another_model(ask, capsys, spoken_run, model, tmp_path):
    start = shutil.copytree(spoken_run, tmp_path / "start")
    keys = {"task": "preference", "start_from": str(start), "method": {}}
    edit_weights(model, lambda tensors: tensors[WEIGHT].add_(1))
    message = r"start_from: expected a run on this model, .* got one of"
    assert_says(refused(capsys, *ask([PAIR] * 4, model=str(model), **keys)), message)
    (start / "record.json").unlink()
    assert_says(refused(capsys, *ask([PAIR] * 4, **keys)), "start_from: expected the folder of a finished run")


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
