"""The training config: plain dataclasses, one field per key of the YAML file, checked by `schema`."""

from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, PlainValidator, TypeAdapter, ValidationInfo

from randlora.tasks import TASKS, DataConfig, TextData
from randlora.training.config.method_table import CHOICES, METHODS, default_keys, is_randlora
from randlora.values import (
    AsLora,
    BasesSeed,
    BelowOne,
    Count,
    Epochs,
    Flag,
    NotNegative,
    Positive,
    PositiveCount,
    Seed,
    Steps,
)

if TYPE_CHECKING:
    MethodName = str
    TaskName = str
else:
    _names = (*METHODS, "full", "head")
    MethodName = Literal[_names]
    TaskName = Literal[tuple(TASKS)]

_DTYPES: dict[str, Literal["float32", "bfloat16", "float16"]] = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
}

_NO_OTHER_KEYS = ConfigDict(extra="forbid")


@dataclass
class MethodConfig:
    """How the model is adapted. A key that the method has no use for is refused (but for r of "full" and "head").

    Attributes:
        name: "full" (every parameter), "head" (the frozen backbone's head only), or an adapter: "randlora", "lora",
            and the others that `randlora methods` lists or PEFT has (`randlora.training.config.method_table`).
        r: Rank of the bases (randlora: smaller means more trained numbers) or of the update. `{as_lora: 16}` is the
            basis rank that trains about as many numbers as LoRA of rank 16 does on the same layers. None means the
            method's default: 16 for LoRA's kin and for randlora, which on a language model has {as_lora: 16}, else that
            of its authors or of PEFT.
        alpha: Scaling of the update. None means the method's default: 8 for randlora, 2r for LoRA's kin.
        dropout: Dropout on the inputs of the adapted layers, in [0, 1).
        bases: Family of the frozen bases: "uniform", "normal", "ternary", "structured" or "peft". None means
            "structured" for randlora and its kin, "uniform" for randlora_a.
        sparsity: The s of ternary bases, whose entries are nonzero with probability 2/s; "sqrt" means √d.
        seed: Seed of the frozen bases, for methods that have some. None means 0.
        strategy: How the update is applied: "auto", "reference", "factored" or "folded". None means "auto" for randlora
            and its kin.
        target_modules: Names (a list) or a regular expression (a string) of the layers to adapt. None or
            "all-linear" means every linear layer of the backbone, without the head; for ln_tuning None means all norms.
        exclude_modules: Names or a regular expression of layers to leave alone.
        options: Further fields of the adapter's config class, by name, such as `num_bases` of nola.
    """

    __pydantic_config__ = _NO_OTHER_KEYS

    name: MethodName = "randlora"
    r: PositiveCount | AsLora | None = None
    alpha: Positive | None = None
    dropout: BelowOne = 0.0
    bases: Literal["uniform", "normal", "ternary", "structured", "peft"] | None = None
    sparsity: Positive | Literal["sqrt"] | None = None
    seed: BasesSeed | None = None
    strategy: Literal["auto", "reference", "factored", "folded"] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizationConfig:
    """How the trained numbers are found, and on what.

    Attributes:
        learning_rate: Peak learning rate. None means the task's: 3e-3 for adapters and heads and 1e-4 for full
            fine-tuning; for sft 1e-3 and 5e-5, for preference 5e-5 and 1e-6. LoRA, its kin, MiSS and the hybrid have
            1e-3 at most, rslora 3e-4.
        head_learning_rate: Peak learning rate of the new head. None means `learning_rate`, or 3e-3 where that is not
            given either, and for DePT's head 6.5 times that.
        epochs: Passes over the training data; parts of one are allowed.
        max_steps: Optimizer steps; -1 means as many as the epochs ask for.
        batch_size: Training examples per device and forward pass. None means 32, for language models 8.
        eval_batch_size: Test examples per device and forward pass. None means 64, for language models 8.
        gradient_accumulation_steps: Forward passes per optimizer step.
        optimizer: An optimizer of transformers by its name (`optim` of its TrainingArguments).
        weight_decay: The optimizer's, on weights but not on biases and norms.
        warmup_ratio: Share of the steps in which the learning rate rises linearly, in [0, 1).
        scheduler: What the learning rate does afterwards: a scheduler of transformers.
        precision: "bf16" and "fp16" are mixed precision: activations in it, trained numbers in fp32.
        device: "auto" takes a GPU if there is one.
        gradient_checkpointing: Recompute activations in the backward pass, for memory.
        save_steps: Optimizer steps between checkpoints to resume from; 0 means one per epoch.
        eval_steps: Optimizer steps between scores on the validation split; 0 means one with each checkpoint where
            `keep_best` or `early_stopping` wants it, else none.
        keep_best: End with the checkpoint that was best on the validation split, in place of the last.
        early_stopping: Stop after this many scores on the validation split without a better one; 0 means never.
        dataloader_workers: Processes that load data; 0 loads in this one.
        max_grad_norm: Gradients are clipped to this norm; 0 means no clipping.
    """

    __pydantic_config__ = _NO_OTHER_KEYS

    learning_rate: Positive | None = None
    head_learning_rate: Positive | None = None
    epochs: Epochs = 2.0
    max_steps: Steps = -1
    batch_size: PositiveCount | None = None
    eval_batch_size: PositiveCount | None = None
    gradient_accumulation_steps: PositiveCount = 1
    optimizer: str = "adamw_torch_fused"
    weight_decay: NotNegative = 0.0
    warmup_ratio: BelowOne = 0.06
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gradient_checkpointing: Flag = False
    save_steps: Count = 0
    eval_steps: Count = 0
    keep_best: Flag = False
    early_stopping: Count = 0
    dataloader_workers: Count = 0
    max_grad_norm: NotNegative = 1.0


def _of_the_task(value: Any, info: ValidationInfo) -> Any:
    wanted: Any = TASKS[info.data["task"]].data_class if "task" in info.data else TextData
    return adapter_of(wanted).validate_python(value)


@cache
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    """What pydantic makes of a type, which takes ten milliseconds to make: a study asks for it thousands of times."""
    return TypeAdapter(kind)


@dataclass
class TrainConfig:
    """One training run.

    Attributes:
        task: "sft" (a language model on examples to imitate), "preference" (on pairs of answers, DPO),
            "text-classification" (a language model or encoder with a head), "image-classification" (a vision model with
            a head) or "image-text" (CLIP with a zero-shot head from prompts).
        model: Hub id, local folder, GGUF file, or `package:NAME/PATH` for such at PATH in an installed Python package.
        start_from: Folder of a finished run on the same model, whose adapter training goes on with. Its method is this
            run's. None starts with the model itself.
        output: The run's folder: new, empty, or holding this very run, which is then resumed.
        seed: Seed of the head, the data order, the draw of validation examples and shots, the augmentation and dropout.
        trust_remote_code: Whether Python code that comes with the model may run.
        dtype: Of the base model's weights, for language models. None means float32 where these are trained, else the
            dtype of `optimization.precision`.
        quantization: How the base model's linear layers are quantized while an adapter is trained, for language models:
            "nf4" (bitsandbytes, 4 bit), "int8" (torchao). None means not at all.
        attn_implementation: How attention is computed, as transformers names it; the kinds beside "eager" and "sdpa"
            need a GPU and packages of their own. None means transformers' choice for the model, mostly "sdpa". On a CPU
            in bfloat16 "eager" is faster for short examples, and takes memory that grows with their length squared.
        report_to: Trackers that transformers reports to, such as "tensorboard", "wandb", "trackio" or "mlflow".
        push_to_hub: Name of a model repository on the hub that the adapter is uploaded to at the end. None means none.
        method: How the model is adapted.
        data: What it is trained, validated and tested on: the data section of the task (`randlora.tasks`).
        optimization: How it is trained.
        fingerprint: Digests of the data, the model's folder and its architecture, which a run writes into its
            `config.yaml`: a config that has some is trained on nothing else. Empty in a new config.
    """

    __pydantic_config__ = _NO_OTHER_KEYS

    task: TaskName = "text-classification"
    model: str = ""
    start_from: str | None = None
    output: str = ""
    seed: Seed = 0
    trust_remote_code: Flag = False
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    quantization: Literal["nf4", "int8"] | None = None
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = (
        None
    )
    report_to: list[str] = field(default_factory=list)
    push_to_hub: str | None = None
    method: MethodConfig = field(default_factory=MethodConfig)
    data: Annotated[DataConfig, PlainValidator(_of_the_task)] = field(default_factory=TextData)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    fingerprint: dict[str, str] = field(default_factory=dict)


def resolve(config: TrainConfig) -> TrainConfig:
    """A copy in which the defaults that depend on other fields are filled in, as `config.yaml` records it."""
    method, defaults = config.method, TASKS[config.task].defaults
    r = method.r
    if r is None and defaults.as_lora and is_randlora(method.name):
        r = {"as_lora": defaults.as_lora}
    r, alpha = default_keys(method.name, r, method.alpha, method.bases)
    choices = {key: getattr(method, key) for key in CHOICES}
    if method.name in METHODS:
        choices = {key: METHODS[method.name].default(key) if value is None else value for key, value in choices.items()}
    method = replace(method, r=r, alpha=alpha, **choices)
    rate, head_rate = _rates(config)
    optimization = replace(
        config.optimization,
        learning_rate=rate,
        head_learning_rate=head_rate,
        batch_size=config.optimization.batch_size or defaults.batch_size,
        eval_batch_size=config.optimization.eval_batch_size or defaults.eval_batch_size,
    )
    return replace(config, method=method, optimization=optimization, dtype=config.dtype or _dtype(config))


def _rates(config: TrainConfig) -> tuple[float, float | None]:
    """Learning rate and the head's: what is given, or what the task and the method take."""
    task, name, given = TASKS[config.task], config.method.name, config.optimization
    if given.learning_rate is not None:
        return given.learning_rate, given.head_learning_rate
    rate = task.defaults.full_learning_rate if name == "full" else task.defaults.learning_rate
    if name in METHODS:
        rate = min(rate, METHODS[name].highest_rate)
    head_rate = given.head_learning_rate
    if task.trained_head and rate < task.defaults.learning_rate:
        head_rate = head_rate or task.defaults.learning_rate  # what the method cannot take, a head can
    return rate, head_rate


def _dtype(config: TrainConfig) -> Literal["float32", "bfloat16", "float16"] | None:
    """What the base model is loaded in, for tasks that ask: weights that are trained lose small steps in 16 bits."""
    if not TASKS[config.task].takes_dtype:
        return None
    if config.method.name not in METHODS:
        return "float32"
    return _DTYPES[config.optimization.precision]
