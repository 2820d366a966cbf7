"""How much of an adapter's update is added: what diffusers and PEFT set by LoRA's names for it."""

from typing import Any


class ScalingLayer:
    """The part of an adapter layer that scales its updates.

    A scale is not saved with the adapter. A layer that is merged stays as it is until it is unmerged.

    Attributes:
        scaling: Adapter name -> the factor of its update; a method's own (g, alpha/r, 1), times the scale that is set.
        initial_scaling: Adapter name -> the method's own.
    """

    scaling: dict[str, float]
    initial_scaling: dict[str, float]
    active_adapters: Any

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set the scale of an adapter; 1 is the update as trained. One that is not on this layer is passed over."""
        if adapter in self.scaling:
            self.scaling[adapter] = scale * self.initial_scaling[adapter]

    def scale_layer(self, scale: float) -> None:
        """Multiply the scales of the active adapters."""
        self.scaling |= {name: scale * value for name, value in self.scaling.items() if name in self.active_adapters}

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the scales of the active adapters; by None set them back to 1."""
        for name in self.active_adapters:
            if name in self.scaling:
                self.scaling[name] = self.initial_scaling[name] if scale is None else self.scaling[name] / scale
