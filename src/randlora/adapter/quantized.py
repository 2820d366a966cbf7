"""Quantized linear layers: which format a layer has, and how its weight is read and written.

The packages that quantize are recognized by their types and imported only where such a layer is there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class QuantizedFormat:
    """A format of quantized weights.

    Attributes:
        name: For messages.
        matches: Whether a layer has it.
        dequantize: From a layer to its weight (out, in); None if that is not supported.
        requantize: Writes a weight (out, in) into a layer, rounded to the format; None if that is not supported.
        multiplies_as_read: Whether a layer's product with inputs of a dtype is, run eagerly, that with the weight that
            `dequantize` gives, in that dtype.
    """

    name: str
    matches: Callable[[Any], bool]
    dequantize: Callable[[Any], Tensor] | None = None
    requantize: Callable[[Any, Tensor], None] | None = None
    multiplies_as_read: Callable[[Any, torch.dtype], bool] = lambda _layer, _dtype: False


def quantized_format(layer: Any) -> QuantizedFormat | None:
    """The format of a quantized linear layer; None for every other layer."""
    if type(getattr(layer, "weight", None)) is nn.Parameter:  # asked in every forward pass
        return None
    if not (hasattr(layer, "in_features") and hasattr(layer, "out_features")):
        return None
    return next((each for each in _FORMATS if each.matches(layer)), None)


def keep_differentiable(model: nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights for inference on a CPU, whose product has no gradient afterwards.

    It does so in the first evaluation, on processors with AVX512-BF16: training then goes on without the gradients of
    such layers' inputs, and to other bits than a run that was not evaluated before.

    Args:
        model: Any model.
    """
    layers: Any = model.modules()
    for layer in layers:
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def keep_unsent(model: nn.Module) -> None:
    """Keep DDP from sending torchao's weights from the first process to the others, which it cannot.

    Every process has read the same ones, and they are frozen.

    Args:
        model: What DDP is going to wrap; it is changed in place.
    """
    names = [name for name, part in model.named_parameters() if is_torchao(part)]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)


def is_torchao(weight: Any) -> bool:
    """Whether a weight is one of torchao's tensors, which look like floating-point ones."""
    return type(weight).__module__.startswith("torchao.")


def _was_conv1d(layer: nn.Module) -> bool:
    """Whether a bitsandbytes layer of transformers has taken the place of a `Conv1D`, whose weight is the other way."""
    return issubclass(getattr(layer, "source_cls", nn.Linear), Conv1D)


def _conv1d(layer: Any) -> Conv1D:
    with torch.device("meta"):
        written = Conv1D(layer.out_features, layer.in_features)
    written.weight, written.bias = nn.Parameter(layer.weight.T.contiguous(), requires_grad=False), layer.bias
    return written


@torch.no_grad()
def write_out(model: Any) -> Any:
    """A transformers model whose quantized linear layers hold the numbers that they stood for, in the model's dtype.

    Args:
        model: A quantized model of transformers, without adapters; it is changed in place.

    Returns:
        The model, which is no longer quantized.

    Raises:
        NotImplementedError: The format of a layer cannot be read.
    """
    layers = [(layer, quantized_format(layer)) for layer in model.modules()]
    if not all(is_torchao(layer.weight) for layer, known in layers if known is not None):
        turned = [name for name, layer in model.named_modules() if _was_conv1d(layer)]
        model = model.dequantize()  # which puts torch's layers in the place of its own, whatever they were
        for name in turned:
            model.set_submodule(name, _conv1d(model.get_submodule(name)))
        return model
    for layer, known in layers:  # transformers has no word for torchao, whose layers are torch's
        if known is not None and known.dequantize is not None:
            layer.weight = nn.Parameter(known.dequantize(layer).to(model.config.dtype), requires_grad=False)
    model.hf_quantizer.remove_quantization_config(model)
    return model


def _weight_class(layer: Any) -> str:
    return type(getattr(layer, "weight", None)).__name__


def _read_bnb_4bit(layer: Any) -> Tensor:
    import bitsandbytes as bnb  # noqa: PLC0415 - a package that need not be there

    state = layer.weight.quant_state
    if getattr(state, "packing_format_for_cpu", False):  # the layer's own doing, in its first inference
        identity = torch.eye(layer.in_features, dtype=state.dtype)
        return bnb.matmul_4bit(identity, layer.weight, quant_state=state).T
    weight: Tensor = bnb.functional.dequantize_4bit(layer.weight.data, state)
    return weight


def _bnb_4bit_multiplies_as_read(layer: Any, dtype: torch.dtype) -> bool:
    packed = getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
    return not packed and layer.compute_dtype in (None, dtype) and not torch.compiler.is_compiling()


def _write_bnb_4bit(layer: Any, weight: Tensor) -> None:
    old = layer.weight
    dtype = getattr(old.quant_state, "original_dtype", old.quant_state.dtype)
    new = type(old)(
        weight.to("cpu", dtype),
        requires_grad=False,
        blocksize=old.blocksize,
        compress_statistics=old.compress_statistics,
        quant_type=old.quant_type,
        quant_storage=old.quant_storage,
        module=layer,
    )
    layer.weight = new.to(old.device)


def _read_bnb_8bit(layer: Any) -> Tensor:
    from bitsandbytes.functional import int8_vectorwise_dequant  # noqa: PLC0415

    # The first call moves the scales from the weight to the state.
    scales = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB
    weight: Tensor = int8_vectorwise_dequant(layer.weight.data, scales.to(layer.weight.device))
    return weight


def _write_bnb_8bit(layer: Any, weight: Tensor) -> None:
    old = layer.weight
    layer.state.CB = layer.state.SCB = None
    layer.weight = type(old)(weight.to("cpu"), requires_grad=False, has_fp16_weights=False).to(old.device)


def _read_torchao(layer: Any) -> Tensor:
    weight: Tensor = layer.weight.dequantize()
    return weight


def _can_requantize(weight: Any) -> bool:
    """Whether a torchao tensor is known and needs no scales of activations that were measured beforehand."""
    measured = ("act_quant_scale", "act_quant_zero_point", "act_pre_scale")
    known = type(weight).__name__ in ("Int8Tensor", "Float8Tensor")
    return known and all(getattr(weight, name, None) is None for name in measured)


def _torchao_multiplies_as_read(layer: Any, _dtype: torch.dtype) -> bool:
    """Whether a torchao tensor that is known leaves the activations as they are, in a layer that does no more."""
    quantizes = layer.weight.act_quant_kwargs is not None or type(layer).forward is not nn.Linear.forward
    return not quantizes and type(layer.weight).__name__ == "Int8Tensor" and not torch.compiler.is_compiling()


def _write_torchao(layer: Any, weight: Tensor) -> None:
    from torchao.quantization import PerGroup, PerRow, PerTensor  # noqa: PLC0415

    old = layer.weight
    block = tuple(old.block_size)
    whole = {tuple(old.shape): PerTensor(), (1, old.shape[1]): PerRow()}
    options: dict[str, Any] = {"granularity": whole.get(block) or PerGroup(block[1])}
    if type(old).__name__ == "Float8Tensor":
        options |= {
            "float8_dtype": old.qdata.dtype,
            "mm_config": old.mm_config,
            "kernel_preference": old.kernel_preference,
        }
    new = type(old).from_hp(weight.to(old.device, old.dtype), act_quant_kwargs=old.act_quant_kwargs, **options)
    layer.weight = nn.Parameter(new, requires_grad=False)


def _read_hqq(layer: Any) -> Tensor:
    weight: Tensor = layer.dequantize()
    return weight


def _write_hqq(layer: Any, weight: Tensor) -> None:
    del layer.W_q  # a parameter, in whose place `quantize` puts a tensor first
    layer.quantize(weight, **layer.quant_config)


_FORMATS = (
    QuantizedFormat(
        "bitsandbytes' 4-bit format",
        lambda layer: _weight_class(layer) == "Params4bit" and layer.weight.quant_state is not None,
        _read_bnb_4bit,
        _write_bnb_4bit,
        _bnb_4bit_multiplies_as_read,
    ),
    QuantizedFormat(
        "bitsandbytes' 8-bit format",
        lambda layer: _weight_class(layer) == "Int8Params" and layer.weight.dtype == torch.int8,
        _read_bnb_8bit,
        _write_bnb_8bit,
    ),
    QuantizedFormat(
        "a torchao format",
        lambda layer: is_torchao(getattr(layer, "weight", None)) and _can_requantize(layer.weight),
        _read_torchao,
        _write_torchao,
        _torchao_multiplies_as_read,
    ),
    QuantizedFormat("a torchao format", lambda layer: is_torchao(getattr(layer, "weight", None)), _read_torchao),
    QuantizedFormat("HQQ's format", lambda layer: hasattr(layer, "W_q"), _read_hqq, _write_hqq),
    QuantizedFormat("GPTQ's or AWQ's format", lambda layer: hasattr(layer, "qweight")),
)
