"""The training config: plain dataclasses, one field per key of the YAML file."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from randlora.tasks.config import DataConfig
from randlora.training.method_table import CHOICES, METHODS, default_keys

if TYPE_CHECKING:
    MethodName = str
else:
    _names = (*METHODS, "full", "head")
    MethodName = Literal[_names]

__all__ = ["DataConfig", "MethodConfig", "OptimizationConfig", "TrainConfig", "resolve"]


@dataclass
class MethodConfig:
    """How the model is adapted. A key that the method has no use for is refused (but for r of "full" and "head").

    Attributes:
        name: "full" (every parameter), "head" (the frozen backbone's head only), or an adapter: "randlora", "lora",
            and the others that `randlora methods` lists or PEFT has (`randlora.training.method_table`).
        r: Rank of the bases (randlora: smaller means more trained numbers) or of the update. None means the method's
            default: 16 for randlora and LoRA's kin, else that of its authors or of PEFT.
        alpha: Scaling of the update. None means the method's default: 8 for randlora, 2r for LoRA's kin.
        dropout: Dropout on the inputs of the adapted layers, in [0, 1).
        bases: Family of the frozen bases: "uniform", "normal", "ternary", "structured" or "peft". None means
            "structured" for randlora and its kin, "uniform" for randlora_a.
        sparsity: The s of ternary bases, whose entries are nonzero with probability 2/s; "sqrt" means √d.
        seed: Seed of the frozen bases, for methods that have some. None means 0.
        strategy: How the update is applied: "auto", "reference", "factored" or "folded". None means "auto" for randlora
            and its kin.
        target_modules: Names (a list) or a regular expression (a string) of the layers to adapt. None or
            "all-linear" means every linear layer of the backbone, without the head.
        exclude_modules: Names or a regular expression of layers to leave alone.
        options: Further fields of the adapter's config class, by name, such as `num_bases` of nola.
    """

    name: MethodName = "randlora"
    r: int | None = None
    alpha: float | None = None
    dropout: float = 0.0
    bases: Literal["uniform", "normal", "ternary", "structured", "peft"] | None = None
    sparsity: float | Literal["sqrt"] | None = None
    seed: int | None = None
    strategy: Literal["auto", "reference", "factored", "folded"] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizationConfig:
    """How the trained numbers are found, and on what.

    Attributes:
        learning_rate: Peak learning rate of AdamW.
        head_learning_rate: Peak learning rate of the new head. None means `learning_rate`.
        epochs: Passes over the training data; parts of one are allowed.
        max_steps: Optimizer steps; -1 means as many as the epochs ask for.
        batch_size: Training examples per device and forward pass.
        eval_batch_size: Test examples per device and forward pass.
        gradient_accumulation_steps: Forward passes per optimizer step.
        weight_decay: AdamW's, on weights but not on biases and norms.
        warmup_ratio: Share of the steps in which the learning rate rises linearly, in [0, 1).
        scheduler: What the learning rate does afterwards: a scheduler of transformers.
        precision: "bf16" and "fp16" are mixed precision: activations in it, trained numbers in fp32.
        device: "auto" takes a GPU if there is one.
        gradient_checkpointing: Recompute activations in the backward pass, for memory.
        save_steps: Optimizer steps between checkpoints to resume from; 0 means one per epoch.
        group_by_length: Make batches of texts of similar length, which wastes little time on padding.
        dataloader_workers: Processes that load data; 0 loads in this one.
        max_grad_norm: Gradients are clipped to this norm; 0 means no clipping.
    """

    learning_rate: float = 3e-3
    head_learning_rate: float | None = None
    epochs: float = 2.0
    max_steps: int = -1
    batch_size: int = 32
    eval_batch_size: int = 64
    gradient_accumulation_steps: int = 1
    weight_decay: float = 0.0
    warmup_ratio: float = 0.06
    scheduler: str = "linear"
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gradient_checkpointing: bool = False
    save_steps: int = 0
    group_by_length: bool = False
    dataloader_workers: int = 0
    max_grad_norm: float = 1.0


@dataclass
class TrainConfig:
    """One training run.

    Attributes:
        task: "text-classification" (encoder and head) or "image-text" (CLIP with a zero-shot head from prompts).
        model: Hub id, local folder, or `package:NAME/PATH` for the folder PATH of an installed Python package.
        output: The run's folder: new, empty, or holding this very run, which is then resumed.
        seed: Seed of the head, the data order, the draw of shots, the augmentation and dropout.
        trust_remote_code: Whether Python code that comes with the model may run.
        encoders: Which towers are adapted: "both" or "vision" (image-text).
        pooling: What the head reads: "model" is the architecture's own head, "mean" the mean of the tokens, which
            is right for sentence encoders (text-classification).
        method: How the model is adapted.
        data: What it is trained and tested on.
        optimization: How it is trained.
        fingerprint: Digests of the training data, the test data, the model's folder and its architecture, which a run
            writes into its `config.yaml`: a config that has some is trained on nothing else. Empty in a new config.
    """

    task: Literal["text-classification", "image-text"] = "text-classification"
    model: str = ""
    output: str = ""
    seed: int = 0
    trust_remote_code: bool = False
    encoders: Literal["both", "vision"] = "both"
    pooling: Literal["model", "mean"] = "model"
    method: MethodConfig = field(default_factory=MethodConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    fingerprint: dict[str, str] = field(default_factory=dict)


def resolve(config: TrainConfig) -> TrainConfig:
    """A copy in which the defaults that depend on other fields are filled in, as `config.yaml` records it."""
    method = config.method
    r, alpha = default_keys(method.name, method.r, method.alpha, method.bases)
    choices = {key: getattr(method, key) for key in CHOICES}
    if method.name in METHODS:
        choices = {key: METHODS[method.name].default(key) if value is None else value for key, value in choices.items()}
    return replace(config, method=replace(method, r=r, alpha=alpha, **choices))
