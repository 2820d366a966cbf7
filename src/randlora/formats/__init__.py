"""What an adapter of any method becomes: a checked folder, a model card, a LoRA, the start of a further training."""

from randlora.formats.checkpoint import load_adapter
from randlora.formats.export import export_lora
from randlora.formats.model_card import write_model_card
from randlora.formats.refine import merge_lora, refine_lora
from randlora.formats.swap import swap_adapter

__all__ = ["export_lora", "load_adapter", "merge_lora", "refine_lora", "swap_adapter", "write_model_card"]
