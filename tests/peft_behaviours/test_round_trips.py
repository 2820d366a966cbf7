"""Saved and loaded by every loader: with embeddings, heads and biases that are trained beside the adapter."""

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from every_method import adapted
from networks import bert, llama, token_ids
from randlora.errors import LayerError
from tiny import save_tokenizer

pytestmark = pytest.mark.slow

AUTO = {"CAUSAL_LM": AutoModelForCausalLM, "SEQ_CLS": AutoModelForSequenceClassification}
PEFT_AUTO = {"CAUSAL_LM": peft.AutoPeftModelForCausalLM, "SEQ_CLS": peft.AutoPeftModelForSequenceClassification}
SAVED = {
    "language model": (llama, "CAUSAL_LM", ["q_proj", "down_proj"], None),
    "with its head": (llama, "CAUSAL_LM", ["q_proj", "down_proj"], ["lm_head"]),
    "with its embeddings": (llama, "CAUSAL_LM", ["q_proj", "down_proj"], ["embed_tokens"]),
    "with both": (llama, "CAUSAL_LM", ["q_proj", "down_proj"], ["embed_tokens", "lm_head"]),
    "classifier": (bert, "SEQ_CLS", ["query", "output.dense"], None),
    "classifier with its embeddings": (bert, "SEQ_CLS", ["query"], ["word_embeddings", "pooler"]),
}


TOKENS = 55


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders with a base model, whose tokenizer is in a folder of its own."""
    folder = tmp_path_factory.mktemp("bases")
    save_tokenizer(folder / "tokenizer", size=TOKENS)
    for build in (llama, bert):
        build().save_pretrained(folder / build.__name__)
    return folder


def loaded_by(loader, adapter, base, task, new_tokens):
    if loader == "AutoPeftModel":
        return PEFT_AUTO[task].from_pretrained(adapter)
    model = AUTO[task].from_pretrained(base)
    if new_tokens:
        model.resize_token_embeddings(TOKENS)
    if loader == "PeftModel":
        return peft.PeftModel.from_pretrained(model, adapter)
    model.load_adapter(str(adapter))
    return model


@pytest.mark.parametrize(("bias", "new_tokens"), [("none", False), ("all", True)])
@pytest.mark.parametrize("case", SAVED)
def test_every_loader_gives_what_was_saved(method, case, bias, new_tokens, bases, tmp_path):
    build, task, targets, modules_to_save = SAVED[case]
    base = AUTO[task].from_pretrained(bases / build.__name__)
    if new_tokens:
        base.resize_token_embeddings(TOKENS)
        AutoTokenizer.from_pretrained(bases / "tokenizer").save_pretrained(tmp_path)
    options = {"target_modules": targets, "modules_to_save": modules_to_save, "bias": bias, "task_type": task}
    model = adapted(method, base, **options)
    expected = model(token_ids()).logits
    model.save_pretrained(tmp_path)
    for loader in ("PeftModel", "AutoPeftModel", "load_adapter"):
        model = loaded_by(loader, tmp_path, bases / build.__name__, task, new_tokens)
        torch.testing.assert_close(model.eval()(token_ids()).logits, expected, msg=loader)


@pytest.mark.parametrize("how", ["a device map", "a limit of memory"])
def test_loaded_onto_a_base_model_that_is_partly_on_disk(method, how, bases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # PEFT writes its copy of the base model's file below the working directory
    model = adapted(method, llama(), target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    expected = model(token_ids()).logits
    model.save_pretrained("adapter")
    places = dict.fromkeys(["model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head"], "cpu")
    places["model.layers.1"] = "disk"
    base = AutoModelForCausalLM.from_pretrained(bases / "llama", device_map=places, offload_folder="of the base model")
    options = {
        "a device map": {"device_map": {f"base_model.model.{name}": place for name, place in places.items()}},
        "a limit of memory": {"max_memory": {"cpu": 20_000}},
    }[how]
    if method in ("lora_xs", "svft", "spectral"):
        with pytest.raises(LayerError, match="expected a weight in memory, for its SVD"):
            peft.PeftModel.from_pretrained(base, "adapter", offload_folder="of the adapter", **options)
        return
    loaded = peft.PeftModel.from_pretrained(base, "adapter", offload_folder="of the adapter", **options).eval()
    assert any(parameter.is_meta for name, parameter in loaded.named_parameters() if ".default." in name)
    for _ in range(2):
        torch.testing.assert_close(loaded(token_ids()).logits, expected)
