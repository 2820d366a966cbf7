"""An adapter merged into its base model, as an ordinary transformers folder that needs neither PEFT nor randlora."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper

from randlora.errors import CheckpointError, LayerError
from randlora.files import expanded, new_folder
from randlora.tasks.classification.mean_pooling import MeanPoolingClassifier
from randlora.tasks.language.generation import ends
from randlora.tasks.language.model import load_tokenizer
from randlora.tasks.sources import BaseModel, load
from randlora.training.adapted import load_adapted

# What lies beside the weights of a model and is wanted beside the merged ones.
_COMPANIONS = (
    "*.txt",
    "tokenizer*",
    "special_tokens_map.json",
    "merges.txt",
    "vocab.json",
    "*.model",
    "*.jinja",
    "*processor*.json",
)
_TOKENIZER = "tokenizer_config.json"


def merge(source: str | Path, output: str | Path, model: str | None = None, *, trust_remote_code: bool = False) -> Path:
    """Merge the adapter of a run, or of an adapter folder, into its base model.

    A quantized base is written out before: the merged model is the one that was trained, and no longer quantized.

    Args:
        source: A run's folder, or an adapter folder.
        output: The folder to write: new or empty.
        model: Where the base model is, if not where training had it.
        trust_remote_code: Whether Python code that comes with the model may run, whatever the folder says.

    Returns:
        The folder written.

    Raises:
        CheckpointError: There is no adapter, it is damaged, or it belongs to another model.
        ConfigError: The base model cannot be loaded.
        OutputError: The folder cannot be written.
    """
    adapted, location = load_adapted(source, model, trust_remote_code=trust_remote_code, dequantize=True)
    merged: Any = merge_adapter(adapted) if isinstance(adapted, PeftModel) else adapted
    given = expanded(source)
    adapter = given / "adapter" if (given / "adapter").is_dir() else given
    if getattr(merged.config, "use_cache", None) is False:
        merged.config.use_cache = True  # off in the training of language models only
    trained_tokenizer = (adapter / _TOKENIZER).is_file()  # with the chat template that training had
    if trained_tokenizer and hasattr(merged, "can_generate") and merged.can_generate():
        tokenizer = load_tokenizer(BaseModel(str(adapter), trust_remote_code), None)
        merged.generation_config.eos_token_id = ends(merged, tokenizer)  # for servers, which ask no template
    with new_folder(output) as folder:
        if isinstance(merged, MeanPoolingClassifier):
            merged.save_merged(folder)
        else:
            merged.save_pretrained(folder)
        if Path(location).is_dir():
            _copy_companions(Path(location), folder)
        if trained_tokenizer:
            _copy_companions(adapter, folder)
        elif not Path(location).is_dir() and not isinstance(merged, transformers.CLIPModel):
            load(transformers.AutoTokenizer.from_pretrained, location, what="tokenizer").save_pretrained(folder)
    return Path(output)


def _copy_companions(source: Path, folder: Path) -> None:
    for pattern in _COMPANIONS:
        for companion in source.glob(pattern):
            if companion.is_file():
                shutil.copy(companion, folder)


def merge_adapter(adapted: PeftModel) -> Any:
    """The base model with the adapter merged into its weights.

    Raises:
        CheckpointError: A merged weight is not finite.
        LayerError: A layer or method cannot be merged.
    """
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except (LayerError, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:  # PEFT's, as of grouped convolutions or an update that depends on the input
        raise LayerError("adapter", expected="a method and layers that can be merged", got=str(error)) from error
    except ValueError as error:  # PEFT's own layers'
        raise CheckpointError("adapter", expected="finite merged weights", got=str(error)) from error
    for name, part in list(merged.named_modules()):
        if isinstance(part, ModulesToSaveWrapper):  # PEFT's LN tuning leaves a trained head in its wrapper
            merged.set_submodule(name, part.unload_and_optionally_merge_module(True, False, None))
    return merged
