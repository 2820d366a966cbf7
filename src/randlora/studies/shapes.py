"""Folders that stand in for the paper's models where these are not at hand: their shapes, for a dry run."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, CLIPImageProcessorPil, PreTrainedTokenizerFast

FILE_NAME = "shapes.yaml"
"""Name on the hub -> what `config.json` says there."""

_OF_IMAGES = ("clip", "dinov2")


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """Name of a model on the hub -> the fields of its config."""
    text = files("randlora.studies").joinpath(FILE_NAME).read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return found


def needs_stand_in(model: str) -> bool:
    """Whether a model is one whose shapes are known, and neither a folder nor in the hub's cache.

    Args:
        model: As a config names it.
    """
    return model in shapes() and not Path(model).exists() and not try_to_load_from_cache(model, "config.json")


def stand_in(model: str, folder: Path) -> Path:
    """A folder with a model's config, a tokenizer of few words, and CLIP's preprocessing where it sees images.

    Args:
        model: One that `needs_stand_in`.
        folder: Where it is made, unless it is there.
    """
    made = folder / model.replace("/", "--")
    if not made.is_dir():
        fields = shapes()[model]
        AutoConfig.for_model(**fields).save_pretrained(made)
        _tokenizer().save_pretrained(made)
        if fields["model_type"] in _OF_IMAGES:
            CLIPImageProcessorPil().save_pretrained(made)
    return made


def _tokenizer() -> PreTrainedTokenizerFast:
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    words = {word: number for number, word in enumerate([*special.values(), *"abcdefghij"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
