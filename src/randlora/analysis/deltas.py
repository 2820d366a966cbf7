"""ΔW of a run or an adapter, layer by layer, with the weight that it changed; one layer in memory at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from randlora.adapter import AdapterLayer
from randlora.adapter.kinds import find_kind, kind_of
from randlora.adapter.parameters import AdaptedModule
from randlora.adapter.quantized import quantized_format
from randlora.analysis.runs import FinishedRun, open_runs
from randlora.errors import CheckpointError, LayerError
from randlora.files import expanded
from randlora.formats.base_weights import changed_by
from randlora.formats.export import adds_delta
from randlora.training.adapted import load_adapted
from randlora.training.methods import build, is_head, load_model
from randlora.training.run.evaluation import require_architecture
from randlora.training.run.folder import CONFIG
from randlora.training.run.weights import read_trained


class LayerDelta(NamedTuple):
    """What one matrix of a model was, and what training added.

    Attributes:
        name: Of the layer; of a stack of matrices with the number in it, as `experts.down_proj[3]`.
        weight: W₀, (out, in).
        delta: ΔW, (out, in), in float32 or float64.
    """

    name: str
    weight: Tensor
    delta: Tensor


class Deltas(ABC):
    """The layers that training changed.

    Attributes:
        names: Of the layers, in the model's order.
    """

    names: list[str]

    def __iter__(self) -> Iterator[tuple[str, list[LayerDelta]]]:
        """Each layer's name with its matrices: one, or those of a stack."""
        for name in self.names:
            weight, delta = self._read(name)
            weight = weight.detach()
            delta = delta.reshape(weight.shape)  # a kernel of a convolution as the matrix that it is
            if not delta.is_floating_point() or delta.itemsize < 4:
                delta = delta.float()
            if weight.dim() == 2:
                yield name, [LayerDelta(name, weight, delta)]
            else:
                pairs = zip(weight, delta, strict=True)
                yield name, [LayerDelta(f"{name}[{number}]", *pair) for number, pair in enumerate(pairs)]

    @abstractmethod
    def _read(self, name: str) -> tuple[Tensor, Tensor]:
        """W₀, (*stack, out, in), and ΔW in this shape or in a kernel's."""


def deltas_of(source: str | Path, model: str | None = None, *, trust_remote_code: bool = False) -> Deltas:
    """ΔW of a run, or of an adapter folder.

    Args:
        source: A finished run's folder, or an adapter folder.
        model: Where the base model is, if not where training had it.
        trust_remote_code: Whether Python code that comes with the model may run.

    Raises:
        CheckpointError: There is none, or it is damaged or of another model.
        ConfigError: The base model cannot be loaded.
        LayerError: A changed layer is no matrix.
    """
    if (expanded(source) / CONFIG).is_file():
        (run,) = open_runs([source], trust_remote_code=trust_remote_code)
        if run.config.method.name == "full":
            return FullDeltas(replace(run, config=replace(run.config, model=model or run.config.model)))
    # Merged into a quantized base, ΔW would have the rounding of the merge in it.
    adapted, _ = load_adapted(source, model, trust_remote_code=trust_remote_code, dequantize=True)
    return AdapterDeltas(adapted, str(source))


class AdapterDeltas(Deltas):
    """The ΔW of an adapter of any method of PEFT's that can be merged.

    Args:
        model: The base model with it; its weights are as before after each layer.
        source: Where it comes from, for messages.
        adapter_name: Its name.

    Raises:
        CheckpointError: The adapter changes no weight, as prompts, or the base weights themselves, as PiSSA.
        LayerError: While iterating: a layer that cannot be merged, or a quantized one, whose merge would add its own
            rounding to ΔW.
    """

    def __init__(self, model: nn.Module, source: str = "adapter", adapter_name: str = "default") -> None:
        self.adapter_name = adapter_name
        self._layers: dict[str, Any] = {
            name.removeprefix("base_model.model.").replace(".updates.", "."): module
            for name, module in model.named_modules()
            if isinstance(module, BaseTunerLayer)
            and not isinstance(module, AdaptedModule)
            and adapter_name in module._get_available_adapters()
        }
        self.names = list(self._layers)
        if not self.names:
            got = type(model).__name__ if not isinstance(model, PeftModel) else "one that changes no weight"
            raise CheckpointError(source, expected="an adapter with a ΔW for each layer", got=got)
        start = changed_by(model.peft_config[adapter_name]) if isinstance(model, PeftModel) else None
        if start is not None:
            hint = "ΔW is told beside W₀, which is gone when the adapter is on"
            raise CheckpointError(source, expected="one that leaves the base weights as they are", got=start, hint=hint)

    @torch.no_grad()
    def _read(self, name: str) -> tuple[Tensor, Tensor]:
        layer = self._layers[name]
        base = layer.get_base_layer()
        kind = kind_of(base)
        if isinstance(layer, AdapterLayer):
            return kind.read(base), layer.delta_weight(self.adapter_name)
        if adds_delta(layer, self.adapter_name) and not isinstance(base, Conv1D):
            return kind.read(base), layer.get_delta_weight(self.adapter_name)
        return self._difference_of_merge(layer, base)

    def _difference_of_merge(self, layer: Any, base: nn.Module) -> tuple[Tensor, Tensor]:
        """W₀ and what a merge adds to it in float32; the layer is left as it was, to the bit."""
        if quantized_format(base) is not None:
            expected = "a layer that is not quantized, where ΔW is known by a merge alone"
            raise LayerError(type(base).__name__, expected=expected)
        kind = kind_of(base)
        before = kind.read(base).clone()
        kept = [(part, part.data) for part in base.parameters()]
        for part, numbers in kept:  # rounded to 16 bits, the sum would have more of the rounding in it than of ΔW
            part.data = numbers.to(torch.promote_types(numbers.dtype, torch.float32), copy=True)
        try:
            layer.merge(adapter_names=[self.adapter_name])
            return before, kind.read(base).double() - before.double()
        except NotImplementedError as error:  # PEFT's, as of grouped convolutions
            raise LayerError(type(base).__name__, expected="a layer that can be merged", got=str(error)) from error
        finally:
            for part, numbers in kept:
                part.data = numbers
            layer.merged_adapters.clear()


class FullDeltas(Deltas):
    """The differences of a full fine-tuning's weights to the base model's, without its head.

    Args:
        run: A finished run of method "full".

    Raises:
        CheckpointError: The trained weights are missing, damaged or of another model.
    """

    def __init__(self, run: FinishedRun) -> None:
        task = run.task()
        load_model(task, run.config)
        require_architecture(task, run.config)
        model = build(task, run.config.method)
        self._trained = read_trained(model, run.folder.adapter)
        self._layers: dict[str, Any] = {
            name: module
            for name, module in model.named_modules()
            if f"{name}.weight" in self._trained and find_kind(module) is not None and not is_head(name, task)
        }
        self.names = list(self._layers)

    @torch.no_grad()
    def _read(self, name: str) -> tuple[Tensor, Tensor]:
        layer = self._layers[name]
        kind = kind_of(layer)
        delta = self._trained[f"{name}.weight"].double() - layer.weight.double()
        return kind.read(layer), delta.T if isinstance(layer, Conv1D) else delta
