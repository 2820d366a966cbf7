"""Contrastive pre-training of the demo's CLIP on glyphs, once per recipe, into a cache folder."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from tqdm import tqdm
from transformers import CLIPModel, PreTrainedTokenizerFast, get_linear_schedule_with_warmup

from randlora.demo import glyphs
from randlora.demo.clip import PIXEL_MEAN, PIXEL_STD, build_model, build_tokenizer, save_clip
from randlora.files import new_folder

_FORMAT = 1  # raise it when the glyphs or this file change in a way that the recipe does not show


@dataclass(frozen=True)
class PretrainRecipe:
    """Everything that decides the pre-trained weights; a change gives another folder in the cache.

    Attributes:
        image_size: Side of the images in pixels, a multiple of `patch_size`.
        patch_size: Side of the patches in pixels.
        width: Hidden size of both towers, a multiple of 32.
        layers: Transformer blocks of the vision tower.
        steps: Optimizer steps.
        batch_size: Pairs per step.
        learning_rate: Peak, of AdamW (embeddings, norms, biases, projections).
        muon_learning_rate: Peak, of Muon (the matrices of the transformer blocks).
        weight_decay: Of both.
        seed: Of the initial weights and of the glyphs.
        words: Words that the tokenizer knows beside the captions', for later tasks; nothing is learned about them.
    """

    image_size: int = 16
    patch_size: int = 4
    width: int = 128
    layers: int = 3
    steps: int = 240
    batch_size: int = 128
    learning_rate: float = 2e-3
    muon_learning_rate: float = 1e-2
    weight_decay: float = 0.05
    seed: int = 0
    words: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that stand for the recipe."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def pixels_to_input(images: np.ndarray) -> Tensor:
    """Grey uint8 images (batch, size, size) as the model's normalized RGB input (batch, 3, size, size)."""
    grey = (torch.from_numpy(images).float() / 255 - PIXEL_MEAN) / PIXEL_STD
    return grey.unsqueeze(1).expand(-1, 3, -1, -1)


def contrastive_loss(logits_per_text: Tensor, subjects: list[str]) -> Tensor:
    """CLIP's symmetric cross-entropy, where all pairs of a batch with the same subject count as matches.

    A batch shows each character several times; to push "the digit four in serif" away from another four would only
    be noise.

    Args:
        logits_per_text: Scaled similarities (batch, batch), row: caption, column: image.
        subjects: What each pair shows.
    """
    index = {subject: number for number, subject in enumerate(subjects)}
    label = torch.tensor([index[subject] for subject in subjects], device=logits_per_text.device)
    target = (label[:, None] == label[None, :]).float()
    target = target / target.sum(dim=1, keepdim=True)
    by_text = torch.nn.functional.cross_entropy(logits_per_text, target)
    by_image = torch.nn.functional.cross_entropy(logits_per_text.T, target)
    return (by_text + by_image) / 2


def _optimizers(model: CLIPModel, recipe: PretrainRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest.

    With AdamW alone a vision transformer spends most of so short a training on a plateau.
    """
    blocks: list[Parameter] = []
    rest: list[Parameter] = []
    for name, parameter in model.named_parameters():
        (blocks if ".layers." in name and parameter.ndim == 2 else rest).append(parameter)
    return [
        torch.optim.Muon(
            blocks, lr=recipe.muon_learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay),
    ]


def _fit(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, recipe: PretrainRecipe) -> None:
    """Train in place."""
    rng = np.random.default_rng(recipe.seed)
    optimizers = _optimizers(model, recipe)
    schedules = [get_linear_schedule_with_warmup(each, recipe.steps // 12, recipe.steps) for each in optimizers]
    model.train()
    with tqdm(total=recipe.steps, desc="pre-training a small CLIP on glyphs", unit="step") as bar:
        for _ in range(recipe.steps):
            batch = glyphs.draw_batch(recipe.batch_size, rng, recipe.image_size)
            text = tokenizer(batch.captions, padding=True, return_tensors="pt")
            logits = model(pixel_values=pixels_to_input(batch.images), **text).logits_per_text
            loss = contrastive_loss(logits, batch.characters)
            model.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for step in (*optimizers, *schedules):
                step.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            bar.update()
    model.eval()


def cache_folder() -> Path:
    """Where pre-trained demo models are kept: $XDG_CACHE_HOME/randlora, or ~/.cache/randlora."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "randlora"


def pretrained_clip(recipe: PretrainRecipe | None = None, cache: Path | None = None) -> Path:
    """Folder of the CLIP pre-trained by a recipe; trained now if the cache does not hold it yet.

    Args:
        recipe: Default: `PretrainRecipe()`, about a minute on two cores.
        cache: Default: `cache_folder()`.

    Returns:
        A folder that transformers' `from_pretrained` loads.

    Raises:
        OutputError: The cache folder cannot be written.
    """
    recipe = recipe or PretrainRecipe()
    folder = (cache or cache_folder()) / f"glyph-clip-{recipe.key}"
    if folder.is_dir():
        return folder
    with new_folder(folder) as unfinished:
        torch.manual_seed(recipe.seed)
        tokenizer = build_tokenizer([*glyphs.all_captions(), *recipe.words], max_length=16)
        model = build_model(tokenizer, recipe.image_size, recipe.width, recipe.layers, recipe.patch_size)
        _fit(model, tokenizer, recipe)
        save_clip(model, tokenizer, unfinished)
        (unfinished / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")
    return folder
