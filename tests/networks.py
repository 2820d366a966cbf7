"""Tiny models with random weights, the same in every call."""

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from randlora import RandLoraConfig

FAMILIES = ("structured", "uniform", "normal", "ternary", "peft")


def bert():
    torch.manual_seed(1)
    config = BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, vocab_size=50, num_labels=3
    )
    return BertForSequenceClassification(config).eval()


def gpt2():
    torch.manual_seed(1)
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=2, n_head=2, vocab_size=50, n_positions=32, **ids)).eval()


def llama():
    torch.manual_seed(1)
    config = LlamaConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=40,
        vocab_size=50,
        max_position_embeddings=32,
    )
    return LlamaForCausalLM(config).eval()


class Net(nn.Module):
    """A wide, a tall and a square layer, none of a round size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Linear(13, 29), nn.Linear(29, 11), nn.Linear(11, 11, bias=False)

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


MODELS = {
    "bert": (bert, ["query", "value", "dense"], "SEQ_CLS"),
    "gpt2": (gpt2, ["c_attn", "c_proj", "c_fc"], "CAUSAL_LM"),
    "llama": (llama, ["q_proj", "k_proj", "up_proj", "down_proj"], "CAUSAL_LM"),
}


def random_config(**options):
    """An adapter config whose ΔW is not zero; for layers this small the default alpha would make it huge."""
    torch.manual_seed(2)
    alpha = None if options.get("bases") == "peft" else 2.0
    return RandLoraConfig(**{"r": 4, "alpha": alpha, "init_weights": False, **options})


def token_ids():
    return torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(3))


def rows():
    return torch.randn(5, 13, generator=torch.Generator().manual_seed(3))
