"""Options of PEFT's that a run cannot keep, and why; and what others take where PEFT's type says more, or less.

Some need calls beside PEFT's own (a pass over the data, a term in the loss), some give another model when the adapter
is loaded on the base model again, some are read by nobody.
"""

from typing import Annotated, Any, Literal

import peft
from annotated_types import Ge, Len
from peft.tuners.lora.config import VeloraConfig
from pydantic import Strict

_DATA = "it needs a pass over the data before the adapter is put on, which a run does not make"
_LOSS = "it needs a term in the loss, which a run does not add"
_MEGATRON = "it is for the layers of Megatron"
_GPTQ = "it is for layers that GPTQ has quantized; see quantization"
_LOFTQ = "the base weights would be others where the adapter is loaded; see quantization"
_NO_USE = "AdaLoRA does not read it"
_DRAWN = "scores would be drawn anew at each evaluation, and no checkpoint holds where the generator stands"
_ASA = "the budget of subspaces needs a call after each step, which a run does not make"

_LORA = {
    "alora_invocation_tokens": "it adapts a part of each text only, which scores, merging and serving know nothing of",
    "arrow_config": "it mixes adapters that are trained already",
    "corda_config": _DATA,
    "eva_config": _DATA,
    "kasa_config": _LOSS,
    "layer_replication": "copies of a layer share its weights, so that what is merged into one is in all",
    "loftq_config": _LOFTQ,
    "lora_ga_config": _DATA,
    "megatron_config": _MEGATRON,
    "megatron_core": _MEGATRON,
    "monteclora_config": _LOSS,
    "qalora_group_size": _GPTQ,
    "use_qalora": _GPTQ,
}

_UNREAD_BY_ADALORA = (
    "alpha_pattern",
    "lora_bias",
    "r",
    "rank_pattern",
    "runtime_config",
    "target_parameters",
    "use_bdlora",
    "use_rslora",
    "velora_config",
)

_ASA_OPTIONS = (
    "use_asa",
    "asa_target_subspaces",
    "init_warmup",
    "final_warmup",
    "mask_interval",
    "asa_importance_beta",
    "asa_uncertainty_beta",
    "asa_schedule_exponent",
)

WITHOUT: dict[type, dict[str, str]] = {
    peft.LoraConfig: _LORA,
    peft.AdaLoraConfig: dict.fromkeys(_UNREAD_BY_ADALORA, _NO_USE),
    peft.AdamssConfig: dict.fromkeys(_ASA_OPTIONS, _ASA),
    peft.HiraConfig: {"rank_pattern": "PEFT's HiRA has one rank on all layers"},
    peft.PveraConfig: {"sample_at_inference": _DRAWN, "generator_seed": _DRAWN},
    peft.OSFConfig: {"target_svd_config": "PEFT does not read it; see rank_pattern"},
}
"""Config class -> its fields, and those of classes that extend it, that only their default fits -> why."""

INITIALIZATIONS = {
    "corda": _DATA,
    "eva": _DATA,
    "loftq": _LOFTQ,
    "lora_ga": _DATA,
    "pissa_niter": "its random draw cannot be made again where the adapter is loaded; pissa is the exact one",
}
"""What a LoRA's `init_lora_weights` begins with that a run does not have -> why."""

_Token = Annotated[int, Strict(), Ge(0), "token numbers"]
_Tokens = Annotated[list[_Token], Len(1), "a list of token numbers"]
_TokensOfLayers = Annotated[dict[str, _Tokens], Len(1), "layers with such a list each"]

KINDS: dict[type, dict[str, Any]] = {
    peft.LoraConfig: {
        "init_lora_weights": bool | Literal["gaussian", "mica", "olora", "orthogonal", "pissa"],
        "trainable_token_indices": _Tokens | _TokensOfLayers | None,
    },
    peft.AdaLoraConfig: {"init_lora_weights": bool},
    # PEFT leaves what else there is to what the memory holds.
    peft.TinyLoraConfig: {"init_weights": Literal[True] | Literal["uniform"]},
    # The projection of the first batch would be in no checkpoint.
    VeloraConfig: {"init_type": Literal["batch_average", "random"]},
}
"""Config class -> field -> the type of what it takes."""
