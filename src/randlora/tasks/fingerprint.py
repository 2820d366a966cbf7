"""Digests of data and models: whether they are what a run began with."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
from torch import nn

from randlora.files import digest
from randlora.tasks.classification.labelled import Examples
from randlora.tasks.paths import FILE, kind_of, local, path_of_cell


def examples_fingerprint(examples: Examples) -> str:
    """A digest of the inputs and labels in their order; of images that lie in files, of the files' contents."""
    rows, folder = examples.rows, local(examples.source).absolute().parent
    if isinstance(rows.features[examples.column], datasets.Image):
        rows = rows.cast_column(examples.column, datasets.Image(decode=False))
    found = hashlib.sha256()
    for *values, label in zip(*(rows[column] for column in examples.inputs), examples.labels, strict=True):
        found.update(f"{label} ".encode())
        for value in values:
            content = _content(value, folder)
            found.update(f"{len(content)} ".encode() + content)
    return found.hexdigest()


def model_fingerprint(location: str) -> str | None:
    """A digest of a model's file, or of the files of its folder; None for one on the hub, known by its name.

    Args:
        location: From `locate`.
    """
    folder = Path(location)
    if kind_of(folder) == FILE:
        return digest(folder)
    if not folder.is_dir():
        return None
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if kind_of(path) == FILE and not path.name.startswith("."):
            found.update(f"{path.name} {digest(path)} ".encode(errors="surrogateescape"))
    return found.hexdigest()


def architecture_fingerprint(model: nn.Module) -> str:
    """A digest of a model's class and of the names and shapes of its parameters, before it is adapted."""
    found = hashlib.sha256(type(model).__name__.encode())
    for name, parameter in sorted(model.named_parameters()):
        found.update(f" {name} {tuple(parameter.shape)}".encode())
    return found.hexdigest()


def _content(value: Any, folder: Path) -> bytes:
    """What is digested of a cell: a text, an encoded image, or the digest of the file that it names."""
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(encoded, bytes):
        return encoded
    name = path_of_cell(value)
    if "\0" not in name and kind_of(folder / name) == FILE:
        with suppress(OSError):  # it will be refused where it is used
            return digest(folder / name).encode()
    return name.encode(errors="surrogatepass")
