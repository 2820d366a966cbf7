"""Find what a config names: modules outside of adapters, and parameters as stacks of matrices."""

from collections.abc import Collection, Iterator

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from randlora.adapter.weights import StackedWeight, innermost
from randlora.errors import LayerError

# Of transformers; MHAttentionMap is the end of several names.
_READERS = ("WavLMAttention", "DisentangledSelfAttention", "MHAttentionMap")


def reads_weights(module: nn.Module) -> bool:
    """Whether the code of a module reads the weights of layers in it, which it then need not call.

    Known are the fast path of nn.TransformerEncoderLayer, the mixers of Mamba and its kin, which have an A_log, and
    some attention modules of transformers.
    """
    is_known = isinstance(module, nn.TransformerEncoderLayer) or type(module).__name__.endswith(_READERS)
    return is_known or hasattr(module, "A_log")


def outer_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module with its name, but not what lies inside an adapted layer."""
    adapted: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(adapted):
            continue
        if isinstance(module, BaseTunerLayer):
            adapted = (f"{name}.",)
        yield name, module


def stacked_weights(name: str, attention: nn.MultiheadAttention) -> dict[str, StackedWeight]:
    """The matrices that an attention module multiplies with: those of q, k and v, packed or not, and of the output."""
    if attention._qkv_same_embed_dim:
        counts = {"in_proj_weight": 3}
    else:
        counts = dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"), 1)
    counts["out_proj.weight"] = 1
    return {f"{name}.{parameter}": StackedWeight(attention, parameter, count) for parameter, count in counts.items()}


def matched_parameters(
    targets: Collection[str], model: nn.Module, taken: Collection[str] = ()
) -> dict[str, StackedWeight]:
    """The parameters whose names end in one of the target names, by name.

    Args:
        targets: `target_parameters` of a config.
        model: The base model, with or without other adapters.
        taken: Names of the layers that the config adapts as modules.

    Raises:
        LayerError: A target is not there, is of the whole model itself, or is adapted with its module.
    """
    found = {}
    missing = set(targets)
    for module_name, module in outer_modules(model) if targets else ():
        layer = innermost(module)
        for parameter, _ in layer.named_parameters(recurse=False):
            name = f"{module_name}.{parameter}"
            fitting = {target for target in targets if name == target or name.endswith(f".{target}")}
            if not fitting:
                continue
            missing -= fitting
            _check_place(name, module_name, module, taken)
            found[name] = StackedWeight(layer, parameter)
    if missing:
        raise LayerError(
            f"target_parameters entry {min(missing)!r}",
            expected="the name of a parameter of the model",
            got="none that ends so",
        )
    return found


def _check_place(name: str, module_name: str, module: nn.Module, taken: Collection[str]) -> None:
    adapted_whole = isinstance(module, BaseTunerLayer) and not hasattr(module, "updates")
    if not module_name or adapted_whole or module_name in taken or isinstance(innermost(module), nn.MultiheadAttention):
        raise LayerError(
            f"parameter {name!r}",
            expected="one of a module inside the model that has no other adapter",
            got=type(innermost(module)).__name__,
            hint="name the module in target_modules instead",
        )
