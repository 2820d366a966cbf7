"""RandLoRA: full-rank fine-tuning at a low-rank price, for the Hugging Face stack.

Importing the package registers its methods with PEFT; `peft.get_peft_model`, `PeftModel.from_pretrained`, `Trainer` and
TRL then work with a `RandLoraConfig` as with any of PEFT's own. PEFT itself is imported when it is first asked for, see
`randlora.deferred`.
"""

from typing import TYPE_CHECKING, Any

from randlora.deferred import Deferred
from randlora.errors import RandLoraError

if TYPE_CHECKING:
    from randlora.formats import export_lora, load_adapter, merge_lora, refine_lora, swap_adapter, write_model_card
    from randlora.methods.budget import fit_rank
    from randlora.methods.randlora import RandLoraConfig, fold_once

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


def _register() -> None:
    from randlora import formats, methods  # noqa: PLC0415 - what this module puts off
    from randlora.methods import budget, randlora  # noqa: PLC0415

    methods.register_methods()
    for part in (formats, budget, randlora):
        globals().update({name: getattr(part, name) for name in __all__ if hasattr(part, name)})


_deferred = Deferred(__name__, "peft", _register)
_deferred.install()


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):  # tools ask every module for some that do
        _deferred.act()
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
