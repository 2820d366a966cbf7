"""GGUF files as model folders: unpacked once, and kept."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch

from randlora.errors import ConfigError
from randlora.files import digest, new_folder
from randlora.messages import note

GGUF = ".gguf"


def converted(location: str) -> str:
    """The folder that holds a GGUF file's model in bfloat16; made where there is none.

    Args:
        location: The file.

    Returns:
        A folder below the hub's cache, whose name is the file's digest.

    Raises:
        ConfigError: The package that reads such files is missing, or the file cannot be read.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError("model", expected="the package gguf, for this file", got="none", hint="pip install gguf")
    path = Path(location)
    folder = Path(huggingface_hub.constants.HF_HOME) / "randlora" / "gguf" / digest(path)
    if not folder.is_dir():
        note(f"{path.name} is unpacked to {folder}, once")
        try:
            with new_folder(folder) as unfinished:
                _unpack(path, unfinished)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            lines = str(error).strip().splitlines() or [""]
            raise ConfigError(
                "model", expected="a GGUF file of a known architecture", got=f"{path}: {lines[0]}"
            ) from error
    return str(folder)


def _unpack(path: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - heavy, and seldom needed

    model: Any = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)
