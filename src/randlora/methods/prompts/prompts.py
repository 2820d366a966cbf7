"""The trained part of a prompt method, as a module beside CLIP's own."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from randlora.errors import ConfigError
from randlora.methods.prompts.config import DeepPromptConfig, PromptConfig
from randlora.methods.prompts.tokens import ClassTokens, Position
from randlora.methods.prompts.transfer import TransferHead

DEVIATION = 0.02
"""Standard deviation of vectors that start at random."""


class Prompts(nn.Module):
    """What a prompt method trains, and what comes of CLIP with it.

    A subclass says which features images and captions have; they are not normalized.

    Args:
        config: The method's, settled.
        clip: The `CLIPModel`, not changed.

    Attributes:
        transfer: DePT's head, or None.
    """

    by_image: ClassVar[bool] = False
    """Whether the features of a caption depend on the image: `text` then gives them for each."""
    visual: ClassVar[bool] = False
    """Whether there are prompts in the vision tower; without, an image has the features that CLIP gives it."""
    position: Position = "end"

    def __init__(self, config: PromptConfig, clip: Any) -> None:
        super().__init__()
        self.length, self.behind = config.length, config.behind
        self.transfer: TransferHead | None = None
        if config.transfer:
            if config.classes is None:
                raise ConfigError("classes", expected="the number of classes, for the transfer head", got="none")
            self.transfer = TransferHead(clip.config.projection_dim, config.classes, config.transfer_weight)

    def image(self, clip: Any, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Features of images."""
        found: Tensor = clip.get_image_features(pixels).pooler_output
        return found

    def text(self, clip: Any, tokens: ClassTokens, images: Tensor) -> Float[Tensor, "*batch classes features"]:
        """Features of the captions; the images' are asked for with `by_image` only."""
        raise NotImplementedError


def starting_context(config: PromptConfig, clip: Any) -> nn.Parameter:
    """The context (length, width) of the text tower at the start."""
    table = clip.text_model.embeddings.token_embedding.weight
    if config.word_ids is not None:
        ids = torch.tensor(config.word_ids[: config.length], device=table.device)
        return nn.Parameter(table.detach()[ids].float())
    return random_vectors(clip.text_model, config.length)


def random_vectors(tower: Any, *sizes: int) -> nn.Parameter:
    """Normal vectors (…, width) for the inputs of a tower's blocks."""
    width = tower.config.hidden_size
    start = torch.empty(*sizes, width, device=tower.encoder.layers[0].layer_norm1.weight.device)
    return nn.Parameter(start.normal_(std=DEVIATION))


def check_depth(config: DeepPromptConfig, clip: Any) -> None:
    """Raise a ConfigError where a tower has fewer blocks than are to have prompts of their own."""
    blocks = min(len(tower.encoder.layers) for tower in (clip.text_model, clip.vision_model))
    if config.depth > blocks:
        raise ConfigError("depth", expected=f"at most {blocks}, the blocks of the towers", got=str(config.depth))
