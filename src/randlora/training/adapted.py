"""The trained model of a run's folder, or of an adapter folder, with its adapter still apart from the base model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers
from peft import PeftModel
from torch import nn

from randlora.adapter.quantized import write_out
from randlora.errors import CheckpointError, ConfigError
from randlora.files import expanded
from randlora.formats import load_adapter
from randlora.formats.checkpoint import read_adapter_config
from randlora.tasks import TASKS, Task
from randlora.tasks.fingerprint import architecture_fingerprint
from randlora.tasks.sources import load, locate
from randlora.training.config.file import load_config
from randlora.training.config.sections import TrainConfig
from randlora.training.methods import load_model
from randlora.training.run.evaluation import trained_model
from randlora.training.run.folder import CONFIG, RunFolder
from randlora.training.run.record import Record


def load_adapted(
    source: str | Path, model: str | None = None, *, trust_remote_code: bool = False, dequantize: bool = False
) -> tuple[nn.Module, str]:
    """Load the base model of a run, or of an adapter folder, with what was trained.

    Args:
        source: A run's folder, or an adapter folder.
        model: Where the base model is, if not where training had it.
        trust_remote_code: Whether Python code that comes with the model may run, whatever the folder says.
        dequantize: Write out the numbers that a quantized base stands for, so that the adapter can be merged exactly.

    Returns:
        A `PeftModel`, or the trained backbone itself where the run's method has no adapter; and the base model's
        folder or name.

    Raises:
        CheckpointError: There is no adapter, it is damaged, or it belongs to another model.
        ConfigError: The base model cannot be loaded.
    """
    source = expanded(source)
    if not (source / CONFIG).is_file():
        return _load_folder(source, model, trust_remote_code=trust_remote_code)
    config = load_config(source / CONFIG)
    config = replace(config, model=model or config.model, trust_remote_code=trust_remote_code)
    return _load_run(config, RunFolder(source), dequantize=dequantize), locate(config.model)


def _load_run(config: TrainConfig, folder: RunFolder, *, dequantize: bool) -> nn.Module:
    record = Record.load(folder.path)
    task = TASKS[config.task](config.data, seed=config.seed, facts=record.facts)
    load_model(task, config)
    if dequantize and config.quantization is not None:
        config = _dequantize(task, config)
    classifier = trained_model(task, config, folder)
    return next((part for part in classifier.modules() if isinstance(part, PeftModel)), task.backbone)


def _dequantize(task: Task, config: TrainConfig) -> TrainConfig:
    """Write out the numbers of the task's base model; the config then knows the shapes that it has so."""
    before = architecture_fingerprint(task.backbone)
    try:
        task.backbone = write_out(task.backbone)
    except NotImplementedError as error:  # transformers', of formats that it only reads
        hint = "keep the adapter beside it"
        got = f"one in {config.quantization}"
        expected = "a base model whose numbers can be written out"
        raise ConfigError("quantization", expected=expected, got=got, hint=hint) from error
    if config.fingerprint.get("architecture") != before:
        return config
    return replace(config, fingerprint={**config.fingerprint, "architecture": architecture_fingerprint(task.backbone)})


def _load_folder(folder: Path, model: str | None, *, trust_remote_code: bool) -> tuple[nn.Module, str]:
    config = read_adapter_config(folder)
    model = model or config.get("base_model_name_or_path")
    if not model:
        raise ConfigError("--model", expected="the base model", got="none", hint="the adapter does not name it")
    if config.get("task_type") in ("SEQ_CLS", "TOKEN_CLS"):
        raise CheckpointError(
            str(folder), expected="a run's folder", hint="an adapter with a classification head needs its run's labels"
        )
    loader: Any = transformers.AutoModel
    trust = {"trust_remote_code": trust_remote_code}
    known = load(transformers.AutoConfig.from_pretrained, model, what="config", **trust)
    if known.architectures:
        name = str(known.architectures[0])
        loader = _auto_class(known, name) if trust_remote_code else getattr(transformers, name, None)
        if loader is None:
            hint = "with --trust-remote-code its own code is run"
            raise ConfigError("--model", expected="a model of transformers' own", got=f"{name} in {model!r}", hint=hint)
    base: nn.Module = load(loader.from_pretrained, model, what="weights", use_safetensors=True, **trust)
    return load_adapter(base, folder), locate(model)


def _auto_class(config: Any, architecture: str) -> Any:
    """The class of transformers that loads an architecture: its own, or the one that finds the model's own code."""
    own = getattr(config, "auto_map", None) or {}
    found = [name for name, path in own.items() if str(path).rpartition(".")[2] == architecture]
    return getattr(transformers, found[0] if found else architecture, None)
