"""Keys as other tools call them, or in the place where these have them, read as ours; the user is told."""

from collections.abc import Iterator, Mapping
from typing import Any

from randlora.errors import ConfigError
from randlora.messages import note

SECTIONS = ("method", "data", "optimization")

OPEN = ("method.options", "fingerprint")
"""Sections whose keys are not fixed."""

_WITHOUT_SECTION = {
    "optimization": "learning_rate max_steps gradient_accumulation_steps gradient_checkpointing weight_decay "
    "warmup_ratio max_grad_norm save_steps eval_steps",
    "data": "max_length packing assistant_only_loss completion_only_loss chat_template_path neftune_noise_alpha "
    "label_smoothing_factor beta loss_type encoders pooling group_by_length",
}
"""Keys that have our names, and stand at the top in other tools or stood there in old configs."""

SYNONYMS = {
    **{name: f"{section}.{name}" for section, names in _WITHOUT_SECTION.items() for name in names.split()},
    # transformers' TrainingArguments, PEFT, TRL.
    "model_name_or_path": "model",
    "output_dir": "output",
    "hub_model_id": "push_to_hub",
    "torch_dtype": "dtype",
    "train_file": "data.train",
    "validation_file": "data.validation",
    "test_file": "data.test",
    "num_train_epochs": "optimization.epochs",
    "per_device_train_batch_size": "optimization.batch_size",
    "per_device_eval_batch_size": "optimization.eval_batch_size",
    "optim": "optimization.optimizer",
    "lr_scheduler_type": "optimization.scheduler",
    "dataloader_num_workers": "optimization.dataloader_workers",
    "load_best_model_at_end": "optimization.keep_best",
    "early_stopping_patience": "optimization.early_stopping",
    "lora_r": "method.r",
    "lora_alpha": "method.alpha",
    "lora_dropout": "method.dropout",
    "lora_target_modules": "method.target_modules",
    # LLM-Adapters, axolotl, LLaMA-Factory.
    "base_model": "model",
    "num_epochs": "optimization.epochs",
    "micro_batch_size": "optimization.batch_size",
    "sequence_len": "data.max_length",
    "cutoff_len": "data.max_length",
    "max_seq_length": "data.max_length",
}

INSTEAD = {
    "bf16": "optimization.precision bf16",
    "fp16": "optimization.precision fp16",
    "use_cpu": "optimization.device cpu",
    "no_cuda": "optimization.device cpu",
    "warmup_steps": "optimization.warmup_ratio",
    "eval_strategy": "optimization.eval_steps",
    "evaluation_strategy": "optimization.eval_steps",
    "save_strategy": "optimization.save_steps",
    "load_in_4bit": "quantization nf4",
    "load_in_8bit": "quantization int8",
    "peft_type": "method.name",
    "use_dora": "method.name dora",
    "use_rslora": "method.name rslora",
}
"""Keys of other tools whose values are not ours -> the key, and the value, that says the same."""


def ours(key: str) -> str:
    """Our name for a dotted key, which another tool may call otherwise; the user is told."""
    known = known_as(key)
    if known != key:
        note(f"{key} is read as {known}")
    return known


def known_as(key: str) -> str:
    """Our name for a dotted key, which another tool may call otherwise and may not keep in a section."""
    section, _, name = key.rpartition(".")
    return key if section in OPEN else SYNONYMS.get(name, key)


def rename(content: Mapping[str, Any]) -> dict[str, Any]:
    """A config's nested keys under our names.

    Raises:
        ConfigError: A key is there under two names.
    """
    found: dict[str, Any] = {}
    for key, value in dotted(content):
        put(found, known_as(key), value)
    for key, _ in dotted(content):  # an error is the only line
        ours(key)
    return found


def dotted(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys and values of a config, those in its sections with dots."""
    for name, value in content.items():
        if name in SECTIONS and isinstance(value, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def put(values: dict[str, Any], key: str, value: Any, *, replace: bool = False) -> None:
    """Put a value at a dotted key into nested dictionaries.

    Raises:
        ConfigError: There is one already, unless it may be replaced; or a part of the key is no section.
    """
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(section, expected="a section with keys of its own", got=repr(values))
    if name in values and not replace:
        raise ConfigError(key, expected="one value", got="two, under two names")
    values[name] = value
