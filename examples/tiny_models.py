"""Stand-ins for pre-trained models, so that the examples run in seconds and without a network."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "a", "the", "cat", "dog", "bird", "sees", "hears", "likes", "red", "blue"]
QUICK = {
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
}
"""Training arguments that belong to the examples and not to the method: a few steps on the processor."""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of `WORDS`."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **names)


def llama() -> LlamaForCausalLM:
    """A Llama of two small blocks with random weights, the same in every call."""
    torch.manual_seed(0)
    ids = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, **heads, **ids))


def save_bert(folder: Path) -> Path:
    """A BERT of two small blocks with random weights, and its tokenizer, in a folder."""
    torch.manual_seed(0)
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, **heads)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
