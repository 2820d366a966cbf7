"""PEFT's RandLora checkpoints to ours and back: the same numbers, transposed λ, the same output.

PEFT's draw becomes `bases="peft"`. A checkpoint with stored projections that equal the draw from its seed keeps only
the seed; projections that no draw here reproduces (PEFT's draw depends on the machine) stay stored.
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftType
from safetensors.torch import save_file
from torch import Tensor

from randlora.adapter.targets import very_layers
from randlora.bases.peft_draw import PeftSparsity, draw_pair
from randlora.errors import CheckpointError
from randlora.files import new_folder
from randlora.formats.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_file_errors,
    read_adapter_config,
    read_tensors,
)
from randlora.methods.randlora.config import PEFT_TYPE

_PEFT_PAIR = ("base_model.randlora_A", "base_model.randlora_B")
_STORED_PAIR = ("base_model.randlora_stored.A", "base_model.randlora_stored.B")
_LAMBDA = ".randlora_lambda"
# Fields with one name and one meaning on both sides.
_SHARED_FIELDS = (
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "fan_in_fan_out",
    "inference_mode",
    "init_weights",
    "layers_pattern",
    "layers_to_transform",
    "modules_to_save",
    "peft_version",
    "r",
    "revision",
    "target_modules",
    "task_type",
)
_SPARSITY: dict[PeftSparsity, float | str | None] = {"dense": None, "sparse": 6, "very_sparse": "sqrt"}


def convert(source: str | Path, output: str | Path) -> str:
    """Convert an adapter folder from PEFT's RandLora, or to it, whichever it is not.

    Args:
        source: An adapter folder: PEFT's RandLora, or one of ours with `bases="peft"`.
        output: The folder to write; new or empty.

    Returns:
        What was done, in a sentence.

    Raises:
        CheckpointError: The folder is damaged, or its adapter has no counterpart on the other side.
        OutputError: The output folder cannot be written.
    """
    config = read_adapter_config(source)
    tensors = read_tensors(Path(source) / WEIGHTS_FILE)
    if config["peft_type"] == PeftType.RANDLORA:
        with adapter_file_errors(source):
            converted, tensors = _from_peft(config, tensors)
        done = "PEFT RandLora -> randlora with bases='peft'"
    elif config["peft_type"] == PEFT_TYPE:
        with adapter_file_errors(source):
            converted, tensors = _to_peft(config, tensors)
        done = "randlora with bases='peft' -> PEFT RandLora"
    else:
        raise CheckpointError(
            str(source), expected=f"peft_type {PeftType.RANDLORA.value} or {PEFT_TYPE}", got=str(config["peft_type"])
        )
    if converted.get("layers_to_transform") is not None:
        converted |= very_layers(name.removesuffix(_LAMBDA) for name in tensors if name.endswith(_LAMBDA))
    with new_folder(output) as folder:
        (folder / CONFIG_FILE).write_text(json.dumps(converted, indent=2, sort_keys=True), encoding="utf-8")
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    return done


def _from_peft(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    sparsity: PeftSparsity = (
        "very_sparse" if config.get("very_sparse") else "sparse" if config.get("sparse") else "dense"
    )
    seed = config.get("projection_prng_key", 0)
    draw: dict[str, Any] | None = None
    if all(name in tensors for name in _PEFT_PAIR):
        A, B = (tensors[name] for name in _PEFT_PAIR)
        draw = {"rows": B.shape[0], "columns": A.shape[2], "dtype": _drawn_dtype(A, B, seed, sparsity)}
        if draw["dtype"] is None:
            draw |= {"dtype": str(A.dtype).removeprefix("torch."), "stored": True}
            tensors |= dict(zip(_STORED_PAIR, (A, B), strict=True))
    # PEFT saves the pair once for the model and again for every layer.
    tensors = {name: t for name, t in tensors.items() if not name.endswith((".randlora_A", ".randlora_B"))}
    converted = {name: config[name] for name in _SHARED_FIELDS if name in config} | {
        "peft_type": PEFT_TYPE,
        "bases": "peft",
        "alpha": config["randlora_alpha"],
        "dropout": config.get("randlora_dropout", 0.0),
        "seed": seed,
        "sparsity": _SPARSITY[sparsity],
        "peft_draw": draw,
    }
    return converted, _transpose_lambda(tensors)


def _to_peft(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if config["bases"] != "peft":
        raise CheckpointError(
            f"bases={config['bases']!r}",
            expected="bases='peft'",
            hint="PEFT's RandLora cannot hold other bases; merge the adapter into its model instead",
        )
    without_it = {"terms": 1, "rank_fraction": 1.0}
    for name in ("exclude_modules", "rank_pattern", "alpha_pattern", "num_bases", "separate_a", *without_it):
        if config.get(name) and config[name] != without_it.get(name):
            raise CheckpointError(
                name, expected="none", got=repr(config[name]), hint="PEFT's RandLora has no such field"
            )
    sparsity = next(name for name, value in _SPARSITY.items() if value == config["sparsity"])
    draw = config.get("peft_draw")
    if draw is not None:
        if draw.get("stored"):
            pair = tuple(tensors.pop(name) for name in _STORED_PAIR)
        else:
            pair = draw_pair(config["seed"], config["r"], draw["rows"], draw["columns"], sparsity, draw["dtype"])
        tensors |= dict(zip(_PEFT_PAIR, pair, strict=True))
    converted = {name: config[name] for name in _SHARED_FIELDS if name in config} | {
        "peft_type": PeftType.RANDLORA.value,
        "projection_prng_key": config["seed"],
        "randlora_alpha": config["alpha"],
        "randlora_dropout": config["dropout"],
        # An adapter that was converted and never loaded knows its seed only.
        "save_projection": draw is not None,
        "sparse": sparsity == "sparse",
        "very_sparse": sparsity == "very_sparse",
    }
    return converted, _transpose_lambda(tensors)


def _drawn_dtype(A: Tensor, B: Tensor, seed: int, sparsity: PeftSparsity) -> str | None:
    """The dtype in which a draw from the seed gives these projections exactly, None if there is none."""
    for dtype in ("bfloat16", "float16") if sparsity == "dense" else ("float32",):
        drawn = draw_pair(seed, A.shape[0], B.shape[0], A.shape[2], sparsity, dtype)
        if all(torch.equal(ours.float(), theirs.float()) for ours, theirs in zip(drawn, (A, B), strict=True)):
            return dtype
    return None


def _transpose_lambda(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (t.T if name.endswith(_LAMBDA) else t).contiguous() for name, t in tensors.items()}
