"""A language model ready to speak: from a run, an adapter or a model, with its tokenizer and one weight per layer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from randlora.errors import ConfigError, LayerError, UpdateError
from randlora.formats.checkpoint import CONFIG_FILE, read_adapter_config
from randlora.tasks import TASKS
from randlora.tasks.language.generation import ends
from randlora.tasks.language.model import check_vocabulary, load_tokenizer, load_whole
from randlora.tasks.language.task import LanguageTask
from randlora.tasks.paths import local
from randlora.tasks.positions import longest_text
from randlora.tasks.sources import BaseModel
from randlora.training.adapted import load_adapted
from randlora.training.config.file import load_config
from randlora.training.merge import merge_adapter
from randlora.training.run.folder import CONFIG

_TOKENIZER = "tokenizer_config.json"


@dataclass(frozen=True)
class Speaker:
    """A causal language model with its tokenizer.

    Attributes:
        model: In evaluation mode, on its device; a `PeftModel` only where the adapter cannot be merged, as into a
            quantized base.
        tokenizer: It pads on the left, so that every prompt of a batch ends where its answer begins.
        context: Tokens that the model has positions for, prompt and answer together.
    """

    model: Any
    tokenizer: Any
    context: int

    @property
    def chats(self) -> bool:
        """Whether there is a chat template."""
        return self.tokenizer.chat_template is not None


def is_adapted(source: str) -> bool:
    """Whether a source is a run's folder or an adapter folder, and not a model by itself."""
    return any((local(source) / name).is_file() for name in (CONFIG, CONFIG_FILE))


def load_speaker(
    source: str, model: str | None = None, *, trust_remote_code: bool = False, dequantize: bool = False
) -> Speaker:
    """Load a language model with what was trained merged into it.

    Args:
        source: A run's folder, an adapter folder, or a model: folder, GGUF file, `package:NAME/PATH` or hub id.
        model: Where the base model of a run or an adapter is, if not where training had it.
        trust_remote_code: Whether Python code that comes with the model may run, whatever the folder says.
        dequantize: Write out the numbers that a run's quantized base stands for, so that the adapter can be merged.

    Raises:
        CheckpointError: The run is not finished, or its adapter is damaged or of another model.
        ConfigError: It is no language model, or cannot be loaded.
    """
    if not is_adapted(source):
        if model is not None:
            expected = "a run's folder or an adapter folder with it"
            raise ConfigError("--model", expected=expected, got=f"{source}, which has neither in it")
        tokenizer = _tokenizer(source, trust_remote_code=trust_remote_code)
        return _ready(load_whole(source, dtype="auto", trust_remote_code=trust_remote_code), tokenizer, source)
    folder, base = _adapter_and_base(local(source), model)
    at = str(folder) if (folder / _TOKENIZER).is_file() else base
    tokenizer = _tokenizer(at, trust_remote_code=trust_remote_code)
    adapted, _ = load_adapted(local(source), model, trust_remote_code=trust_remote_code, dequantize=dequantize)
    return _ready(_merged(adapted), tokenizer, source)


def _adapter_and_base(source: Path, model: str | None) -> tuple[Path, str]:
    """The adapter folder and the base model, of a run or an adapter folder that is a language model's."""
    if (source / CONFIG).is_file():
        config = load_config(source / CONFIG)
        if not issubclass(TASKS[config.task], LanguageTask):
            raise ConfigError(str(source), expected="a run that trained a language model", got=f"one of {config.task}")
        return source / "adapter", model or config.model
    known = read_adapter_config(source)
    if known.get("task_type") not in (None, "CAUSAL_LM"):
        raise ConfigError(str(source), expected="an adapter of a language model", got=f"one of {known['task_type']}")
    return source, model or str(known.get("base_model_name_or_path") or source)


def _tokenizer(name: str, *, trust_remote_code: bool) -> Any:
    tokenizer = load_tokenizer(BaseModel(name, trust_remote_code), None)
    tokenizer.padding_side = "left"
    return tokenizer


def _merged(adapted: Any) -> Any:
    """One weight in place of a base weight and its update; a quantized one would be rounded, and stays as it is."""
    if not isinstance(adapted, PeftModel) or getattr(adapted.get_base_model(), "is_quantized", False):
        return adapted
    try:
        return merge_adapter(adapted)
    except (LayerError, UpdateError):  # a kind of layer that takes no update, a method whose update is no matrix
        return adapted


def _ready(model: Any, tokenizer: Any, source: str) -> Speaker:
    if not hasattr(model, "can_generate") or not model.can_generate():
        raise ConfigError(source, expected="a causal language model", got=type(model).__name__)
    check_vocabulary(model, tokenizer)
    own, defaults = model.config, model.generation_config
    own.use_cache = True  # off in training
    defaults.pad_token_id = tokenizer.pad_token_id
    defaults.eos_token_id = ends(model, tokenizer)
    if not getattr(model, "is_quantized", False):
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Speaker(model.eval(), tokenizer, longest_text(model, tokenizer))
