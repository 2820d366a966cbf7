"""Trained parameters on disk: one safetensors file, for checkpoints and for methods without an adapter format."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from randlora.errors import CheckpointError
from randlora.formats.checkpoint import check_finite

FILE_NAME = "trained.safetensors"


def save_trained(model: nn.Module, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write the parameters that require gradients, and averages of them, to `folder`, atomically.

    Args:
        model: The model.
        folder: Where to; it is made.
        state: The model's gathered state dict, where its own parameters are shards (FSDP).
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    source = dict(model.named_parameters()) if state is None else state
    tensors = {name: source[name].detach().contiguous() for name in names} | _averages(model)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE_NAME}.tmp"
    temporary.unlink(missing_ok=True)  # a link would be written through
    save_file(tensors, temporary)
    temporary.replace(folder / FILE_NAME)


def load_trained(model: nn.Module, folder: Path) -> None:
    """Read what `save_trained` wrote into a model of the same build.

    Raises:
        CheckpointError: The file is missing, damaged, or holds other names or shapes than the model's, or numbers that
            are not finite.
    """
    tensors = read_trained(model, folder)
    with torch.no_grad():
        for name, parameter in _trained(model).items():
            whole = tensors[name].to(parameter.device)
            if isinstance(parameter, DTensor):  # of which each process has its part
                whole = distribute_tensor(whole, parameter.device_mesh, parameter.placements)
            parameter.copy_(whole)


def read_trained(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Read what `save_trained` wrote, for a model of the same build, which is left as it is.

    On a CPU the tensors are views of the file: what nobody uses of them takes no memory for long.

    Raises:
        CheckpointError: As `load_trained`.
    """
    path = folder / FILE_NAME
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(str(path), expected="a safetensors file", got=str(error)) from error
    check_finite(tensors, str(path))
    wanted = _trained(model)
    if wanted.keys() != tensors.keys():
        name = min(wanted.keys() ^ tensors.keys())
        raise CheckpointError(
            str(path),
            expected="the trained parameters of this model",
            got=f"{'no' if name in wanted else 'an additional'} '{name}'",
        )
    for name, parameter in wanted.items():
        if parameter.shape != tensors[name].shape:
            raise CheckpointError(
                f"{path}: '{name}'",
                expected=f"shape {tuple(parameter.shape)}",
                got=f"{tuple(tensors[name].shape)}",
                hint="it was trained on another base model",
            )
    return tensors


def _trained(model: nn.Module) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {**trained, **_averages(model)}


def _averages(model: nn.Module) -> dict[str, Tensor]:
    """Sums over the epochs so far, from which a resumed run goes on."""
    return {name: buffer for name, buffer in model.named_buffers() if name.rpartition(".")[2].startswith("average_")}


def folder_bytes(folder: Path) -> int:
    """Size of all files of a folder in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
