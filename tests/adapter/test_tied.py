"""Adapters on tied embeddings and heads: a merge unties them, and what is saved of it loads untied."""

import copy

import peft
import pytest
import torch
import transformers
from torch import nn

from every_method import config, fill
from networks import Net, random_config, rows
from randlora.errors import LayerError

SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
HEADS = {"num_key_value_heads": 1, "head_dim": 8}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
BART = {
    "vocab_size": 50,
    "d_model": 16,
    **{f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in
       {"ffn_dim": 24, "layers": 1, "attention_heads": 2}.items()},
}  # fmt: skip
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
START = {"decoder_start_token_id": 0}
MODELS = {  # class, options, name of the embedding, of the head, whether the config can say that they are not tied
    "Llama": ("LlamaForCausalLM", {**SIZES, "tie_word_embeddings": True}, "embed_tokens", "lm_head", True),
    "GPT2": (
        "GPT2LMHeadModel",
        {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 0},
        "wte",
        "lm_head",
        True,
    ),
    "Gemma3Text": ("Gemma3ForCausalLM", {**SIZES, **HEADS}, "embed_tokens", "lm_head", True),
    "Bart": (
        "BartForConditionalGeneration",
        {**BART, **IDS, **START, "scale_embedding": True},
        "embed_tokens",
        "lm_head",
        True,
    ),
    "Bert": ("BertForMaskedLM", SIZES, "word_embeddings", "decoder", True),
    "ModernBert": (
        "ModernBertForMaskedLM",
        {**SIZES, **IDS, "cls_token_id": 1, "sep_token_id": 2},
        "tok_embeddings",
        "decoder",
        True,
    ),
    "T5": ("T5ForConditionalGeneration", {**T5, **START}, "embed_tokens", "lm_head", False),
    "UMT5": ("UMT5ForConditionalGeneration", {**T5, **START}, "embed_tokens", "lm_head", False),
    "SwitchTransformers": (
        "SwitchTransformersForConditionalGeneration",
        {**T5, **START, "num_experts": 2},
        "embed_tokens",
        "lm_head",
        False,
    ),
}
TOKENS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(3))


def build(name, **options):
    torch.manual_seed(1)
    model_class, own, *_ = MODELS[name]
    return getattr(transformers, model_class)(getattr(transformers, f"{name}Config")(**own, **options)).eval()


def logits(model):
    decoder = {"decoder_input_ids": TOKENS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(TOKENS, **decoder).logits


def adapted(name, where, dtype=torch.float32):
    embedding, head = MODELS[name][2:4]
    targets = {"embedding": [embedding], "head": [head], "both": [embedding, head]}[where]
    base = build(name).to(dtype)
    return base, fill(peft.get_peft_model(base, config("randlora", target_modules=targets))).eval()


def near(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("where", ["embedding", "head", "both"])
@pytest.mark.parametrize("name", MODELS)
def test_merged_and_saved_a_model_is_untied(name, where, tmp_path, recwarn):
    base, model = adapted(name, where)
    expected = logits(base)
    assert (expected - logits(build(name))).abs().max() > 1e-2
    recwarn.clear()
    merged = model.merge_and_unload(safe_merge=True)
    told = [str(warning.message) for warning in recwarn if "tied" in str(warning.message)]
    assert len(told) == 1
    assert "\n" not in told[0]
    near(logits(merged), expected)
    assert merged.config.tie_word_embeddings is not MODELS[name][4]
    merged.tie_weights()
    near(logits(merged), expected)
    merged.save_pretrained(tmp_path)
    loaded, report = type(merged).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    near(logits(loaded.eval()), expected)


@pytest.mark.parametrize("where", ["embedding", "head", "both"])
@pytest.mark.parametrize("name", ["Llama", "Bart", "T5"])
def test_unmerging_ties_again_to_the_last_bit(name, where):
    base, model = adapted(name, where, torch.bfloat16)
    before = logits(base)
    with model.disable_adapter():
        plain = logits(base)
    with pytest.warns(UserWarning, match=r"have one weight, which is untied for the merge, until unmerge_adapter\(\)"):
        model.merge_adapter()
    torch.testing.assert_close(logits(base), before, rtol=0.1, atol=0.1)
    copied = copy.deepcopy(model)
    for each in (model, copied):
        each.unmerge_adapter()
        assert torch.equal(logits(each.base_model.model), before)
        with each.disable_adapter():
            assert torch.equal(logits(each.base_model.model), plain)
    memory = {p.data_ptr() for n, p in base.named_parameters(remove_duplicate=False) if p.shape == (50, 16)}
    assert len(memory) == 1
    model.merge_adapter()
    with model.disable_adapter():  # which unmerges
        assert torch.equal(logits(base), plain)


@pytest.mark.parametrize("unload", ["merge_and_unload", "unload"])
@pytest.mark.parametrize("where", ["embedding", "head"])
@pytest.mark.parametrize("name", ["Llama", "Bart", "SwitchTransformers"])
def test_merged_first_and_unloaded_then_a_model_is_untied_too(name, where, unload, tmp_path):
    base, model = adapted(name, where)
    expected = logits(base)
    model.merge_adapter()
    merged = getattr(model, unload)()
    merged.tie_weights()
    near(logits(merged), expected)
    merged.save_pretrained(tmp_path)
    near(logits(type(merged).from_pretrained(tmp_path).eval()), expected)


def test_merged_in_inference_mode_it_can_be_trained():
    _, model = adapted("Llama", "both")
    with torch.inference_mode():
        merged = model.merge_and_unload()
    merged.requires_grad_(True)
    merged(TOKENS, labels=TOKENS).loss.backward()
    assert merged.lm_head.weight.grad.any()


def test_what_moves_while_merged_is_tied_again():
    base, model = adapted("Llama", "both")
    model.merge_adapter()
    model.double()
    model.unmerge_adapter()
    assert base.lm_head.base_layer.weight is base.model.embed_tokens.base_layer.weight
    assert base.lm_head.base_layer.weight.dtype == torch.float64
    near(logits(base).float(), logits(adapted("Llama", "both")[0]))


def test_one_adapter_of_two_and_no_adapter_on_what_is_tied(recwarn):
    base, model = adapted("Llama", "embedding")
    model.add_adapter("other", config("randlora", target_modules=["q_proj"]))
    model.set_adapter("other")
    fill(model, seed=5)
    recwarn.clear()
    model.merge_adapter(["other"])
    assert not [w for w in recwarn if "untied" in str(w.message)]
    assert base.lm_head.weight is base.model.embed_tokens.base_layer.weight
    merged = model.merge_and_unload(adapter_names=["other"])
    assert merged.config.tie_word_embeddings
    assert merged.lm_head.weight is merged.model.embed_tokens.weight


@pytest.mark.filterwarnings("error:.*have one weight")
def test_a_merge_that_is_refused_leaves_all_tied():
    base, model = adapted("Llama", "embedding")
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.fill_(float("nan"))
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(LayerError, match="finite"):
            merge(safe_merge=True)
        assert base.lm_head.weight is base.model.embed_tokens.base_layer.weight
        assert base.config.tie_word_embeddings


def test_a_module_in_two_places_is_refused():
    base = Net()
    base.again = base.c
    model = fill(peft.get_peft_model(base, config("randlora")))
    expected = model(rows())
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(
            LayerError, match=r"'c': expected a weight of its own.*'again' has too, being the same module"
        ):
            merge()
    assert torch.equal(model(rows()), expected)


def test_a_parameter_that_another_module_has_too():
    class Holder(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.up = weight

        def forward(self, x):
            return x @ self.up

    weight = nn.Parameter(torch.randn(6, 6))
    base = nn.Sequential(Holder(weight), Holder(weight))
    model = peft.get_peft_model(base, random_config(target_modules=None, target_parameters=["0.up"]))
    x = torch.randn(3, 6)
    expected = model(x)
    with pytest.warns(UserWarning, match="0 and 1 have one weight"):
        model.merge_adapter()
    near(model(x), expected)
    model.unmerge_adapter()
    assert base[0].base_layer.up is base[1].up
    with pytest.warns(UserWarning, match="0 and 1 have one weight"):
        merged = model.merge_and_unload()
    near(merged(x), expected)


def test_a_head_that_is_trained_whole_beside_an_adapted_embedding(tmp_path):
    base = build("Llama")
    options = {"target_modules": ["embed_tokens"], "modules_to_save": ["lm_head"]}
    model = fill(peft.get_peft_model(base, config("randlora", **options))).eval()
    expected = logits(base)
    merged = model.merge_and_unload()
    near(logits(merged), expected)
    merged.save_pretrained(tmp_path)
    near(logits(type(merged).from_pretrained(tmp_path).eval()), expected)
