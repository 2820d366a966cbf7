"""RandLoRA: full-rank fine-tuning at a low-rank price, for the Hugging Face stack.

Importing the package registers its methods with PEFT; `peft.get_peft_model`, `PeftModel.from_pretrained`, `Trainer` and
TRL then work with a `RandLoraConfig` as with any of PEFT's own.
"""

from randlora.errors import RandLoraError
from randlora.formats import export_lora, load_adapter, merge_lora, refine_lora, swap_adapter, write_model_card
from randlora.methods import register_methods
from randlora.methods.randlora import RandLoraConfig, fit_rank, fold_once

register_methods()

__version__ = "0.1.0"

__all__ = [
    "RandLoraConfig",
    "RandLoraError",
    "__version__",
    "export_lora",
    "fit_rank",
    "fold_once",
    "load_adapter",
    "merge_lora",
    "refine_lora",
    "swap_adapter",
    "write_model_card",
]
