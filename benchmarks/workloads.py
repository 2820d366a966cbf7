"""The models that are timed: shaped like real ones, with random weights, and a batch for each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)


@dataclass(frozen=True)
class Workload:
    """A model, what is adapted in it, and its batches.

    Attributes:
        model: Builds the model, float32.
        targets: `target_modules` of every method.
        r: Basis rank of RandLoRA; the others train as many numbers.
        samples: Samples of one step.
        check_samples: Samples of the correctness check, which also runs in float32.
        gpu: Too large for a CPU: run where there is a GPU.
        batch: (number of samples) -> keyword arguments of the model.
    """

    model: Callable[[], nn.Module]
    targets: list[str] | str
    r: int
    samples: int
    check_samples: int
    batch: Callable[[int], dict[str, Tensor | bool]]
    gpu: bool = False


def _llama() -> nn.Module:
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=256,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def _llama_3(hidden: int, layers: int, heads: int, intermediate: int) -> nn.Module:
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def _roberta() -> nn.Module:
    config = RobertaConfig(vocab_size=1024, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return RobertaForSequenceClassification(config)


def _clip() -> nn.Module:
    # transformers' defaults are ViT-B/32; only the vocabulary is cut down.
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return CLIPModel(CLIPConfig(text_config={"vocab_size": 1024, **ids}, vision_config={}))


def _ids(samples: int, length: int) -> Tensor:
    return torch.randint(3, 1024, (samples, length), generator=torch.Generator().manual_seed(1))


def _text(samples: int, length: int = 256) -> dict[str, Tensor | bool]:
    ids = _ids(samples, length)
    return {"input_ids": ids, "labels": ids}


def _long_text(samples: int) -> dict[str, Tensor | bool]:
    return _text(samples, 768)


def _sentences(samples: int) -> dict[str, Tensor | bool]:
    return {"input_ids": _ids(samples, 64), "labels": torch.arange(samples) % 2}


def _images_and_captions(samples: int) -> dict[str, Tensor | bool]:
    pixels = torch.randn(samples, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    ids = _ids(samples, 16)
    ids[:, -1] = 2
    return {"pixel_values": pixels, "input_ids": ids, "return_loss": True}


_LLAMA_TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
_ALL_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_CLIP_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
_ROBERTA_TARGETS = r".*encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|.*dense)"
WORKLOADS = {
    **{
        f"llama-{256 * samples}": Workload(_llama, _LLAMA_TARGETS, 16, samples, 1, _text)  # name: tokens of a step
        for samples in (1, 4, 16)
    },
    "roberta-base": Workload(_roberta, _ROBERTA_TARGETS, 16, 32, 4, _sentences),
    "clip-vit-b32": Workload(_clip, _CLIP_TARGETS, 16, 128, 8, _images_and_captions),
    # Llama-3.2-3B and Llama-3-8B but for the vocabulary; 4 rows of 768 tokens as in PEFT's published comparison.
    **{
        f"llama-3b-{name}": Workload(partial(_llama_3, 3072, 28, 24, 8192), targets, 32, 4, 1, _long_text, gpu=True)
        for name, targets in (("qv", ["q_proj", "v_proj"]), ("all", _ALL_TARGETS))
    },
    "llama-8b": Workload(partial(_llama_3, 4096, 32, 32, 14336), _LLAMA_TARGETS, 30, 2, 1, _long_text, gpu=True),
}
