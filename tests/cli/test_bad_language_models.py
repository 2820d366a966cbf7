"""Base models of language runs that cannot be: one line that says what is wrong, and nothing left behind."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from randlora.cli import main
from randlora.training import train
from refusals import PAIR, PLAIN, assert_says, refused

WEIGHT = "model.layers.0.self_attn.q_proj.weight"


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
    "an encoder with a head": (
        lambda m: put(m, RobertaForCausalLM(RobertaConfig(vocab_size=75, max_position_embeddings=130, **SMALL))),
        "a causal language model, got RobertaForCausalLM as an encoder, whose tokens see those behind them",
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


@pytest.mark.slow
def test_a_start_that_is_unfinished_or_of_another_model(ask, capsys, spoken_run, model, tmp_path):
    start = shutil.copytree(spoken_run, tmp_path / "start")
    keys = {"task": "preference", "start_from": str(start), "method": {}}
    edit_weights(model, lambda tensors: tensors[WEIGHT].add_(1))
    message = r"start_from: expected a run on this model, .* got one of"
    assert_says(refused(capsys, *ask([PAIR] * 4, model=str(model), **keys)), message)
    (start / "record.json").unlink()
    assert_says(refused(capsys, *ask([PAIR] * 4, **keys)), "start_from: expected the folder of a finished run")


@pytest.mark.slow
def test_a_language_model_whose_config_names_no_decoder_trains(llama, sft_config, tmp_path):
    model = shutil.copytree(llama, tmp_path / "model")
    put(model, GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=75, max_position_embeddings=128, **SMALL)))
    sft_config.model, sft_config.optimization.max_steps = str(model), 1
    assert train(sft_config).metrics["test_loss"] > 0
