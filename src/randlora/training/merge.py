"""An adapter merged into its base model, as an ordinary transformers folder that needs neither PEFT nor randlora."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn

from randlora.adapter import load_adapter
from randlora.adapter.checkpoint import read_adapter_config
from randlora.errors import CheckpointError, ConfigError
from randlora.files import new_folder
from randlora.tasks.mean_pooling import MeanPoolingClassifier
from randlora.tasks.sources import load, locate
from randlora.training.config import TrainConfig
from randlora.training.config_file import load_config
from randlora.training.evaluate import trained_model
from randlora.training.methods import task_of
from randlora.training.record import Record
from randlora.training.run_folder import CONFIG, RunFolder

HEAD_FILE = "head.safetensors"
"""Weight and bias of the head where `pooling` is "mean": logits = mean of the tokens · weightᵀ + bias."""

# What lies beside the weights of a model and is wanted beside the merged ones.
_COMPANIONS = (
    "*.txt",
    "tokenizer*",
    "special_tokens_map.json",
    "merges.txt",
    "vocab.json",
    "*.model",
    "*processor*.json",
)


def merge(source: str | Path, output: str | Path, model: str | None = None) -> Path:
    """Merge the adapter of a run, or of an adapter folder, into its base model.

    Args:
        source: A run's folder, or an adapter folder.
        output: The folder to write: new or empty.
        model: Where the base model is, if not where training had it.

    Returns:
        The folder written.

    Raises:
        CheckpointError: There is no adapter, it is damaged, or it belongs to another model.
        ConfigError: The base model cannot be loaded.
        OutputError: The folder cannot be written.
    """
    source = Path(source).expanduser()
    if (source / CONFIG).is_file():
        config = load_config(source / CONFIG)
        config = replace(config, model=model or config.model)
        merged, location = _merged_run(config, RunFolder(source)), locate(config.model)
    else:
        merged, location = _merged_adapter(source, model)
    with new_folder(output) as folder:
        if isinstance(merged, MeanPoolingClassifier):
            # transformers has no class for it: the encoder as it is, the linear layer over the mean beside it.
            save_file({name: t.contiguous() for name, t in merged.classifier.state_dict().items()}, folder / HEAD_FILE)
            merged = merged.encoder
        merged.save_pretrained(folder)
        for pattern in _COMPANIONS if Path(location).is_dir() else ():
            for companion in Path(location).glob(pattern):
                shutil.copy(companion, folder)
        if not Path(location).is_dir() and not isinstance(merged, transformers.CLIPModel):
            load(transformers.AutoTokenizer.from_pretrained, location, what="tokenizer").save_pretrained(folder)
    return Path(output)


def _merged_run(config: TrainConfig, folder: RunFolder) -> Any:
    record = Record.load(folder.path)
    task = task_of(config, record.label_names)
    classifier = trained_model(task, config, folder)
    adapted = next((part for part in classifier.modules() if isinstance(part, PeftModel)), None)
    return task.backbone if adapted is None else _unload(adapted)


def _merged_adapter(folder: Path, model: str | None) -> tuple[Any, str]:
    config = read_adapter_config(folder)
    model = model or config.get("base_model_name_or_path")
    if not model:
        raise ConfigError("--model", expected="the base model", got="none", hint="the adapter does not name it")
    if config.get("task_type") in ("SEQ_CLS", "TOKEN_CLS"):
        raise CheckpointError(
            str(folder), expected="a run's folder", hint="an adapter with a classification head needs its run's labels"
        )
    architectures = load(transformers.AutoConfig.from_pretrained, model, what="config").architectures or []
    loader = getattr(transformers, architectures[0], None) if architectures else transformers.AutoModel
    if loader is None:
        raise ConfigError("--model", expected="a model of transformers' own", got=f"{architectures[0]} in {model!r}")
    base: nn.Module = load(loader.from_pretrained, model, what="weights", use_safetensors=True)
    return _unload(load_adapter(base, folder)), locate(model)


def _unload(adapted: PeftModel) -> Any:
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise CheckpointError("adapter", expected="finite merged weights", got=str(error)) from error
