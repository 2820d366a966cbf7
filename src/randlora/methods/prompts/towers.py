"""CLIP's frozen towers with vectors put among the inputs of their blocks."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.masking_utils import create_causal_mask

from randlora.methods.prompts.tokens import ClassTokens


def text_features(
    clip: Any,
    tokens: ClassTokens,
    context: Float[Tensor, "*rows length width"],
    deep: Sequence[Float[Tensor, "length width"]] = (),
) -> Float[Tensor, "rows features"]:
    """The text tower on captions with a context, projected and not normalized.

    Args:
        clip: A `CLIPModel`.
        tokens: The captions.
        context: In the inputs of the first block, of all captions or of each.
        deep: In place of what comes of the context, in the inputs of the second block, the third, and so on.
    """
    tower = clip.text_model
    embedded = _put(tower.embeddings.token_embedding(tokens.ids), tokens.places, context)
    hidden = tower.embeddings(inputs_embeds=embedded)
    # Nothing sees what is behind it, so that padding behind the end needs no mask of its own.
    mask = create_causal_mask(config=tower.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None)
    for index, layer in enumerate(tower.encoder.layers):
        if 1 <= index <= len(deep):
            hidden = _put(hidden, tokens.places, deep[index - 1])
        hidden = layer(hidden, mask, is_causal=True)
    hidden = tower.final_layer_norm(hidden)
    ends = hidden[torch.arange(len(hidden), device=hidden.device), tokens.last]
    found: Tensor = clip.text_projection(ends)
    return found


def image_features(
    clip: Any, pixels: Float[Tensor, "batch 3 height width"], prompts: Sequence[Float[Tensor, "length width"]]
) -> Float[Tensor, "batch features"]:
    """The vision tower on images with vectors behind the patches, projected and not normalized.

    Args:
        clip: A `CLIPModel`.
        pixels: The images.
        prompts: In the inputs of the first block, before CLIP's first norm; in place of what comes of these, in the
            inputs of the second block, and so on.
    """
    tower = clip.vision_model
    hidden = tower.pre_layrnorm(_behind(tower.embeddings(pixels), prompts[0]))
    for index, layer in enumerate(tower.encoder.layers):
        if 1 <= index < len(prompts):
            hidden = _behind(hidden[:, : -len(prompts[index])], prompts[index])
        hidden = layer(hidden, None)
    found: Tensor = clip.visual_projection(tower.post_layernorm(hidden[:, 0]))
    return found


def _put(
    hidden: Float[Tensor, "rows tokens width"], places: Int[Tensor, "rows length"], prompts: Tensor
) -> Float[Tensor, "rows tokens width"]:
    prompts = prompts.expand(len(hidden), -1, -1).to(hidden.dtype)
    return hidden.scatter(1, places[..., None].expand_as(prompts), prompts)


def _behind(hidden: Float[Tensor, "batch tokens width"], prompts: Float[Tensor, "length width"]) -> Tensor:
    return torch.cat([hidden, prompts.expand(len(hidden), -1, -1).to(hidden.dtype)], dim=1)
