"""Models of transformers from their configs alone: tensors with shapes and no numbers, for what is said of a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from transformers import AutoConfig

from randlora.errors import ConfigError


class OnMeta(TorchFunctionMode):
    """Make tensors with a fraction on the device "meta"; whole numbers and truth values are real.

    `torch.device("meta")` makes all of them there, and then positions and token types are lost that no file holds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        del types
        kwargs = dict(kwargs or {})
        if func in _device_constructors() and kwargs.get("device") is None:
            made = func(*args, **{**kwargs, "device": "meta"})
            if isinstance(made, Tensor) and made.is_floating_point():
                return made
        return func(*args, **kwargs)


def new_model(
    loader: Any,
    location: str,
    *,
    dtype: torch.dtype | None = None,
    quantization_config: Any = None,
    trust_remote_code: bool = False,
    output_loading_info: bool = False,
    use_safetensors: bool = True,
    ignore_mismatched_sizes: bool = False,
    **fields: Any,
) -> Any:
    """What `from_pretrained` would give, but for the weights.

    Args:
        loader: `from_pretrained` of a class of transformers.
        location: The model's folder, or its name on the hub.
        dtype: Of its weights.
        quantization_config: Must be None.
        trust_remote_code: Whether code that comes with the model may run.
        output_loading_info: Whether a report is wanted too; it says that all weights were there.
        use_safetensors: Without meaning here, as `ignore_mismatched_sizes`.
        ignore_mismatched_sizes: See `use_safetensors`.
        fields: Of the model's config.

    Raises:
        ConfigError: It is to be quantized.
    """
    del use_safetensors, ignore_mismatched_sizes
    if quantization_config is not None:
        raise ConfigError("quantization", expected="weights to quantize", got="none")
    config = AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code, **fields)
    kind = loader.__self__
    make = getattr(kind, "from_config", None) or kind._from_config
    model = make(config, dtype=dtype) if dtype is not None else make(config)
    return (model, {"missing_keys": set(), "mismatched_keys": set()}) if output_loading_info else model
