"""What the demo compares: four methods, few-shot and on all training digits, as ordinary training configs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from randlora.demo.digits import DigitFiles
from randlora.demo.glyphs import DIGIT_TEMPLATE
from randlora.training import DataConfig, MethodConfig, OptimizationConfig, TrainConfig

RANDLORA_RANK = 16


@dataclass(frozen=True)
class Setting:
    """How much training data the runs of a setting see, and how long they train.

    Attributes:
        name: Name in table and picture.
        shots: Training images of each digit; None means all.
        steps: Optimizer steps of 32 images.
        learning_rates: Peak learning rate of each method, by its name in the table.
    """

    name: str
    shots: int | None
    steps: int
    learning_rates: dict[str, float]


SETTINGS = (
    Setting("16 per class", 16, 60, {}),
    Setting("all", None, 90, {}),
)


@dataclass(frozen=True)
class Arm:
    """One run of the comparison.

    Attributes:
        setting: How much data it may see.
        label: The method's name in table and picture.
        config: What `randlora.training.train` gets.
    """

    setting: str
    label: str
    config: TrainConfig


def equal_lora_rank(model: nn.Module, r: int) -> int:
    """LoRA's rank at which it trains as many numbers as RandLoRA with bases of rank r, as nearly as can be.

    Per linear layer with m = min(out, in) and n = ⌈m/r⌉, RandLoRA trains n·r + n·m numbers and LoRA rank·(out + in).

    Args:
        model: All of its linear layers are adapted.
        r: RandLoRA's basis rank.

    Returns:
        The rank, at least 1.
    """
    shapes = [layer.weight.shape for layer in model.modules() if isinstance(layer, nn.Linear)]
    randlora = sum(-(-min(shape) // r) * (r + min(shape)) for shape in shapes)
    return max(1, round(randlora / sum(sum(shape) for shape in shapes)))


def plan(model: Path, digits: DigitFiles, output: Path, settings: Sequence[Setting] = SETTINGS) -> list[Arm]:
    """Every method in every setting.

    Args:
        model: Folder of the pre-trained CLIP.
        digits: Training and test data.
        output: The runs get their folders below it.
        settings: How much data the runs see.
    """
    with torch.device("meta"):
        skeleton = CLIPModel(CLIPConfig.from_pretrained(model))
    methods = {
        "full fine-tuning": MethodConfig(name="full"),
        "LoRA": MethodConfig(name="lora", r=equal_lora_rank(skeleton, RANDLORA_RANK)),
        "RandLoRA uniform": MethodConfig(name="randlora", r=RANDLORA_RANK, bases="uniform"),
        "RandLoRA structured": MethodConfig(name="randlora", r=RANDLORA_RANK, bases="structured"),
    }
    return [
        Arm(setting.name, label, _config(model, digits, output, setting, label, method))
        for setting in settings
        for label, method in methods.items()
    ]


def _config(
    model: Path, digits: DigitFiles, output: Path, setting: Setting, label: str, method: MethodConfig
) -> TrainConfig:
    return TrainConfig(
        task="image-text",
        model=str(model),
        output=str(output / f"{setting.name} {label}".lower().replace(" ", "-")),
        method=method,
        data=DataConfig(
            train=str(digits.train),
            test=str(digits.test),
            shots=setting.shots,
            prompt_templates=[DIGIT_TEMPLATE],
            augment=False,  # a flipped two is no two
        ),
        optimization=OptimizationConfig(
            learning_rate=setting.learning_rates[label],
            max_steps=setting.steps,
            batch_size=32,
            eval_batch_size=128,
            save_steps=setting.steps,  # a run of seconds needs no checkpoints on the way
            precision="fp32",
            device="cpu",
        ),
    )
