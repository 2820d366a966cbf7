"""What of an adapter's file was trained, and on which layers: by the names that its tuner gives to its tensors."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

_SHARED = "base_model"
"""Where PEFT keeps what all layers share."""


@dataclass(frozen=True)
class TrainedNumbers:
    """How many numbers of an adapter's file were trained.

    Attributes:
        by_layer: Adapted layer -> those of its own; of some methods a layer has none, or nothing at all in the file.
        shared: Those that the layers share.
        whole: Those of modules that were trained whole beside the adapter, such as a head, and of an adapter of the
            weights beside prompts.
    """

    by_layer: Mapping[str, int]
    shared: int
    whole: int

    @property
    def adapter(self) -> int:
        """Those of the adapter, on all layers."""
        return self.shared + sum(self.by_layer.values())


_OF_VARIANTS: Mapping[str, tuple[str, ...]] = {"mica": ("lora_B", "lora_embedding_B")}
"""`init_lora_weights` -> LoRA's own tensors that are frozen then."""


def trained_numbers(peft_type: str, shapes: Mapping[str, tuple[int, ...]], start: object = None) -> TrainedNumbers:
    """Count what was trained; frozen bases that are stored beside it are left out.

    Args:
        peft_type: The adapter's, of which PEFT knows the tuner.
        shapes: Name -> shape of every tensor of its file.
        start: LoRA's `init_lora_weights`; None where the method has no such field.
    """
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING[peft_type]
    layer_class = getattr(PEFT_TYPE_TO_TUNER_MAPPING[peft_type], "tuner_layer_cls", None)
    frozen = {name for name in getattr(layer_class, "other_param_names", ()) if "_" in name}  # r may be a module's name
    # The projections of VeLoRA, and those of PEFT's RandLora that no draw gives, are buffers.
    frozen |= {"lora_velora_embed", "randlora_stored", *_OF_VARIANTS.get(str(start), ())}
    by_layer: Counter[str] = Counter()
    whole = 0
    for name, shape in shapes.items():
        parts = name.split(".")
        place = next((n for n, part in enumerate(parts) if part.startswith(prefix) or part in frozen), None)
        if place is None:
            whole += math.prod(shape)
        else:
            by_layer[".".join(parts[:place])] += 0 if parts[place] in frozen else math.prod(shape)
    return TrainedNumbers(by_layer, by_layer.pop(_SHARED, 0), whole)
