"""Call a module as if some of its parameters were other tensors."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from randlora.errors import UpdateError


def call_with(module: nn.Module, parameters: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
    """The module's output with tensors in place of the parameters of these names; the module is as before afterwards.

    Args:
        module: Called as it is, hooks and all.
        parameters: Name in the module -> the tensor to use.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.

    Raises:
        UpdateError: The module's weights are offloaded, so a hook of accelerate's would overwrite the tensors.
    """
    if any(module.get_parameter(name).is_meta for name in parameters):
        raise UpdateError(
            type(module).__name__, expected="weights in memory", got="offloaded ones", hint="merge the adapter first"
        )
    return functional_call(module, dict(parameters), args, kwargs)
