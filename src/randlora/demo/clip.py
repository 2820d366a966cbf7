"""A CLIP of about a million parameters for glyphs of 16 pixels, and its folder in transformers' ordinary format."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

PIXEL_MEAN = 0.5
PIXEL_STD = 0.5
# The first ids of the vocabulary. CLIP's text tower pools at the first eos token, except where the id of eos is 2:
# transformers takes that for the original CLIP's mistaken config and then pools at the largest id instead.
_SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>")


def build_tokenizer(captions: list[str], max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the lower-case words of the captions, between <bos> and <eos>.

    Args:
        captions: Every sentence that the model is to be trained on.
        max_length: Longest sequence that the model takes, in tokens.
    """
    words = sorted({word for caption in captions for word in caption.lower().split()})
    vocabulary = {token: index for index, token in enumerate((*_SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 -- not a password
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, vocabulary[token]) for token in ("<bos>", "<eos>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    names = {f"{token[1:-1]}_token": token for token in _SPECIAL_TOKENS}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **names)


def build_model(
    tokenizer: PreTrainedTokenizerFast, image_size: int, width: int, layers: int, patch_size: int = 4
) -> CLIPModel:
    """A CLIPModel with random weights: both towers of the same width and depth.

    Args:
        tokenizer: From `build_tokenizer`; gives the size of the vocabulary and the longest sequence.
        image_size: Side of the images in pixels, a multiple of `patch_size`.
        width: Hidden size of both towers and of the common space, a multiple of 32.
        layers: Transformer blocks in the vision tower; the text tower, whose sentences are short, has half as many.
        patch_size: Side of the patches in pixels.
    """
    tower = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}
    text = {
        **tower,
        "num_hidden_layers": max(1, layers // 2),
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {**tower, "num_hidden_layers": layers, "image_size": image_size, "patch_size": patch_size}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
    # As large as the embedded patches: with transformers' 0.02 the patches drown the positions, and a training of a few
    # hundred steps is too short to make up for it.
    torch.nn.init.normal_(model.vision_model.embeddings.position_embedding.weight, std=0.14)
    return model


def save_clip(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights, config, tokenizer and image preprocessing into a folder that `from_pretrained` loads."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = model.config.vision_config.image_size
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [PIXEL_MEAN] * 3,
        "image_std": [PIXEL_STD] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n", encoding="utf-8")
