"""Merging a run on a quantized base: the numbers that the base stands for are written out, and ΔW is added to them."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from randlora.cli import main
from randlora.training import train
from randlora.training.adapted import load_adapted

pytestmark = pytest.mark.slow

PRODUCTS = 2 * 7
"""Linear layers that a token passes in the tiny model, of which each rounds W₀ + ΔW once."""

EPSILON = {"float32": 128 * 2.0**-24, "bfloat16": 2.0**-8}
"""Error of a product: of a sum of 128 terms in float32, of numbers that are rounded once in 16 bits."""


@torch.no_grad()
def logits(model, text):
    found = model.eval()(**text).logits
    assert torch.isfinite(found).all()
    return found.float()


@pytest.fixture
def gpt2(llama, tmp_path):
    """A model of `Conv1D`, whose weights lie the other way, some of them square."""
    folder = tmp_path / "gpt2"
    AutoTokenizer.from_pretrained(llama).save_pretrained(folder)
    words = AutoModelForCausalLM.from_pretrained(llama).config.vocab_size
    config = GPT2Config(vocab_size=words, n_embd=64, n_layer=2, n_head=2, n_positions=128, eos_token_id=3)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("method", ["randlora", "lora"])
def test_the_merged_model_says_what_the_unmerged_one_says(sft_config, tmp_path, quantization, dtype, method):
    pytest.importorskip({"nf4": "bitsandbytes", "int8": "torchao"}[quantization])
    sft_config.quantization, sft_config.dtype, sft_config.method.name = quantization, dtype, method
    sft_config.data.general = False
    train(sft_config)
    assert main(["merge", sft_config.output, "--output", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")  # neither PEFT nor a package of the quantization
    assert type(merged).__name__ == "LlamaForCausalLM"
    assert not hasattr(merged.config, "quantization_config")
    assert {parameter.dtype for parameter in merged.parameters()} == {getattr(torch, dtype)}
    text = AutoTokenizer.from_pretrained(tmp_path / "merged")("abc abc dda", return_tensors="pt")
    adapted, _ = load_adapted(sft_config.output)
    wanted = logits(adapted, text)
    near = PRODUCTS * EPSILON[dtype] * wanted.abs().max()
    assert (logits(merged, text) - wanted).abs().max() <= near
    with adapted.disable_adapter():
        assert (logits(adapted, text) - wanted).abs().max() > 3 * near  # the adapter says something


@pytest.mark.parametrize("method", ["randlora", "lora"])
def test_layers_that_lie_the_other_way_do_so_when_merged(sft_config, gpt2, tmp_path, method):
    pytest.importorskip("bitsandbytes")
    sft_config.model, sft_config.quantization, sft_config.method.name = str(gpt2), "nf4", method
    sft_config.dtype, sft_config.data.general = "float32", False
    train(sft_config)
    assert main(["merge", sft_config.output, "--output", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    text = AutoTokenizer.from_pretrained(tmp_path / "merged")("abc abc dda", return_tensors="pt")
    text.pop("token_type_ids", None)
    adapted, _ = load_adapted(sft_config.output)
    torch.testing.assert_close(logits(merged, text), logits(adapted, text), rtol=1e-4, atol=1e-5)
