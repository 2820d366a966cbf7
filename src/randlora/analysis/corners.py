"""Three trained models as files, and one model in memory that takes any weighted sum of them and goes back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from randlora.errors import ConfigError
from randlora.tasks import Task
from randlora.training.merge import merge_adapter


def write_corner(task: Task, model: nn.Module, path: Path) -> None:
    """Write the weights of a run's model, its adapter merged, under the names of the model without adapter.

    Args:
        task: The run's task.
        model: From `FinishedRun.model`; its adapter is gone afterwards.
        path: The file.

    Raises:
        CheckpointError: A merged weight is not finite.
        LayerError: The adapter cannot be merged.
    """
    adapted = next((part for part in model.modules() if isinstance(part, PeftModel)), None)
    if adapted is not None:
        model = task.wrap(merge_adapter(adapted), train_head=False)
    save_file({name: part.detach().contiguous() for name, part in model.named_parameters()}, path)


class Corners:
    """A base model whose weights can be set to weighted sums of trained ones.

    In memory there is the base model and one tensor at a time; the trained weights, and what the base had in their
    place, stay in files.

    Args:
        model: The base model, as the task wraps it.
        files: From `write_corner`, one for each trained model.
        scratch: A folder for the base model's own values.

    Attributes:
        names: Of the parameters in which a trained model differs from the base.

    Raises:
        ConfigError: A trained model has other parameters than the base.
    """

    def __init__(self, model: nn.Module, files: Sequence[Path], scratch: Path) -> None:
        self._parameters = dict(model.named_parameters())
        self._files: list[Any] = [safe_open(str(path), framework="pt") for path in files]
        for file in self._files:
            other = self._parameters.keys() ^ set(file.keys())
            if other:
                got = f"another with {min(other)}"
                raise ConfigError("runs", expected="runs whose merged models have one set of weights", got=got)
        self.names = [
            name
            for name, parameter in self._parameters.items()
            if any(not torch.equal(file.get_tensor(name), parameter) for file in self._files)
        ]
        kept = scratch / "base.safetensors"
        save_file({name: self._parameters[name].detach().contiguous() for name in self.names}, kept)
        self._base: Any = safe_open(str(kept), framework="pt")

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Around `set`: in the end the model has its own weights again, to the bit."""
        try:
            yield
        finally:
            with torch.no_grad():
                for name in self.names:
                    self._parameters[name].copy_(self._base.get_tensor(name))

    @torch.no_grad()
    def set(self, weights: Sequence[float]) -> None:
        """Set the model to base + Σ weightᵢ · (trainedᵢ − base), summed in float64 and rounded once.

        Args:
            weights: A factor for each trained model; with 1 and else 0 the trained weights come out to the bit.
        """
        for name in self.names:
            base = self._base.get_tensor(name).double()
            total = base.clone()
            for weight, file in zip(weights, self._files, strict=True):
                if weight:
                    total += weight * (file.get_tensor(name).double() - base)
            self._parameters[name].copy_(total)

    def products(self) -> Tensor:
        """Inner products of the second and third model's differences to the first, (2, 2)."""
        found = torch.zeros(2, 2, dtype=torch.float64)
        for name in self.names:
            first, *others = (file.get_tensor(name).double().flatten() for file in self._files)
            lines = torch.stack([other - first for other in others])
            found += lines @ lines.T
        return found


def base_model(task: Task) -> nn.Module:
    """The base model that a task has loaded, as the task wraps it, evaluating."""
    return task.wrap(task.backbone, train_head=False).requires_grad_(False).eval()
