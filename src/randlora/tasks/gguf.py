"""GGUF files as model folders: unpacked once, and kept."""

import importlib.util
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch

from randlora.errors import ConfigError, RandLoraError
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
    path = Path(location)
    if not path.is_file():
        raise ConfigError("model", expected="a GGUF file", got=f"{path}, where there is none")
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError("model", expected="the package gguf, for this file", got="none", hint="pip install gguf")
    folder = Path(huggingface_hub.constants.HF_HOME) / "randlora" / "gguf" / digest(path)
    if not folder.is_dir():
        try:
            _check(path)
            note(f"{path.name} is unpacked to {folder}, once")
            with new_folder(folder) as unfinished:
                _unpack(path, unfinished)
        except (RandLoraError, MemoryError):
            raise
        # Of a damaged file numpy, struct, transformers and the reader each raise classes of their own.
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                "model", expected="a whole GGUF file of a known architecture", got=f"{path}: {lines[0]}"
            ) from error
    return str(folder)


def _check(path: Path) -> None:
    """Read the list of tensors, which fails for a file that is cut short, before anything is said or written."""
    import gguf  # noqa: PLC0415 - an optional package

    gguf.GGUFReader(path)


def _unpack(path: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - heavy, and seldom needed

    model: Any
    model, report = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    if report["missing_keys"]:  # which are drawn at random
        raise ValueError(f"no tensor for {min(report['missing_keys'])}")
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)
