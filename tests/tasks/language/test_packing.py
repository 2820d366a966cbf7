"""A model that keeps packed examples apart is told from one that does not, whatever its attention."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, OPTConfig

from randlora.tasks.language import keeps_apart

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "sliding": MistralConfig(**SMALL, sliding_window=4),
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1),
    "opt": OPTConfig(
        vocab_size=97, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32
    ),
}
LENGTHS = [5, 1, 7, 3]


def build(name, attention, spread=0.3):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, spread)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("name", "apart"), [("llama", True), ("sliding", True), ("gpt2", True), ("opt", False)])
@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_models_are_told_apart(name, apart, attention, spread):
    model = build(name, attention, spread).train()
    model.lm_head.eval()
    assert keeps_apart(model) is apart
    assert keeps_apart(model.to(torch.bfloat16)) is apart
    assert model.training
    assert not model.lm_head.training


def test_a_model_without_positions_does_not():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(100, 4)

        def forward(self, input_ids, use_cache):
            return type("Output", (), {"logits": self.table(input_ids).cumsum(dim=1)})

    assert keeps_apart(Sums()) is False


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "sliding", "gpt2"])
def test_trl_packs_without_leaks(name, attention):
    collators = pytest.importorskip("trl.trainer.sft_trainer")
    model = build(name, attention).eval()
    examples = [torch.randint(1, 97, (length,)).tolist() for length in LENGTHS]
    rows = [
        {
            "input_ids": [*examples[i], *examples[i + 1]],
            "labels": [*examples[i], *examples[i + 1]],
            "seq_lengths": LENGTHS[i : i + 2],
        }
        for i in (0, 2)
    ]
    batch = collators.DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([ids]), use_cache=False).logits[0] for ids in examples])
        torch.testing.assert_close(model(**batch, use_cache=False).logits[0], alone, rtol=1e-5, atol=1e-5)
        # With a cache it takes them for one text: SFTTrainer passes use_cache=False, and so must whoever tests.
        assert (model(**batch, use_cache=True).logits[0] - alone).abs().max() > 0.1
    starts = torch.tensor([0, *LENGTHS[:-1]]).cumsum(0)
    assert (labels[0, starts] == -100).all()
