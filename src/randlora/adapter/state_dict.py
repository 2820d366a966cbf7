"""The check between reading a checkpoint and filling a model with it."""

from torch import Tensor, nn

from randlora.adapter.base_layer import AdapterLayer
from randlora.errors import CheckpointError, UpdateError


def check_state_dict(
    model: nn.Module, layer_class: type[AdapterLayer], adapter_name: str, state_dict: dict[str, Tensor]
) -> None:
    """Raise unless a state dict holds what every adapted layer trains in the right shape, and nothing unknown.

    Args:
        model: The model with the adapter in place.
        layer_class: The class of its adapted layers.
        adapter_name: Its name.
        state_dict: By the model's parameter names.

    Raises:
        CheckpointError: Something is missing, too much, or of another shape.
        UpdateError: The adapter is merged: to unmerge it takes the numbers that were merged.
    """
    expected = _expected_shapes(model, layer_class, adapter_name)
    trained = tuple(f".{kind}." for kind in layer_class.adapter_layer_names)
    found = {n: tensor.shape for n, tensor in state_dict.items() if any(part in f"{n}." for part in trained)}
    advice = "the adapter was trained on another base model or with other target modules"
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(f"adapter tensor {name}", expected=str(tuple(shape)), got="none", hint=advice)
        if found[name] != shape:
            raise CheckpointError(
                f"adapter tensor {name}", expected=str(tuple(shape)), got=str(tuple(found[name])), hint=advice
            )
    known = {part for name in model.state_dict() for part in (name, name.replace(f".{adapter_name}.", ".", 1))}
    for name in state_dict:  # with bias="all" PEFT writes saved modules twice, once without the adapter's name
        if name not in (expected if name in found else known):
            raise CheckpointError(f"adapter tensor {name}", expected="a layer for it", got="none", hint=advice)


def _expected_shapes(
    model: nn.Module, layer_class: type[AdapterLayer], adapter_name: str
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every trained tensor of an adapter that is not merged."""
    expected = {}
    for module_name, module in model.named_modules():
        if not isinstance(module, layer_class):
            continue
        if adapter_name in module.merged_adapters:
            hint = "call unmerge_adapter() first"
            raise UpdateError(f"adapter {adapter_name!r}", expected="an unmerged one", hint=hint)
        for kind in module.adapter_layer_names:
            tensors = getattr(module, kind)
            if adapter_name in tensors:
                expected[f"{module_name}.{kind}.{adapter_name}.weight"] = tuple(tensors[adapter_name].weight.shape)
    return expected
