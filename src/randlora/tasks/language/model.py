"""Base language models: from a folder, the hub, a package or a GGUF file; in a dtype, or quantized."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TorchAoConfig

from randlora.adapter.quantized import keep_differentiable, quantized_format
from randlora.errors import ConfigError
from randlora.tasks.language.looking_ahead import looks_ahead
from randlora.tasks.paths import FILE, kind_of, local
from randlora.tasks.sources import BaseModel, load

_PACKAGES = {"nf4": "bitsandbytes", "int8": "torchao"}


def load_tokenizer(base: BaseModel, chat_template_path: str | None) -> Any:
    """Load a model's tokenizer, with a token that ends a text and one that pads.

    Args:
        base: The model.
        chat_template_path: A file with a chat template in place of the tokenizer's own, or None.

    Raises:
        ConfigError: It cannot be loaded, or knows no end of a text.
    """
    tokenizer: Any = load(
        AutoTokenizer.from_pretrained, base.name, what="tokenizer", trust_remote_code=base.trust_remote_code
    )
    if tokenizer.eos_token_id is None:
        hint = "name one of its tokens as eos_token in tokenizer_config.json"
        expected = "a tokenizer with an end-of-text token"
        raise ConfigError("model", expected=expected, got=f"none in '{base.name}'", hint=hint)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if chat_template_path is not None:
        tokenizer.chat_template = _read_template(chat_template_path)
    return tokenizer


def _read_template(name: str) -> str:
    path, expected = local(name), "a file with a chat template, in UTF-8"
    if (kind := kind_of(path)) != FILE:
        raise ConfigError("data.chat_template_path", expected=expected, got=f"'{name}', {kind}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError("data.chat_template_path", expected=expected, got=f"'{name}': {error}") from error


def load_whole(name: str, **options: Any) -> Any:
    """Load a causal language model all of whose weights are in its files; transformers draws others at random.

    Args:
        name: The model, as in a config.
        options: Of `from_pretrained`.

    Raises:
        ConfigError: It cannot be loaded, a weight is missing or of another shape than its config says, or it is an
            encoder, which would learn to copy the token that it is to predict.
    """
    loader = AutoModelForCausalLM.from_pretrained
    report = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, found = load(loader, name, what="weights", use_safetensors=True, **report, **options)
    missing, mismatched = sorted(found["missing_keys"]), sorted(found["mismatched_keys"])
    if missing or mismatched:
        more = f" and {len(missing) + len(mismatched) - 1} others" if len(missing) + len(mismatched) > 1 else ""
        key, *sizes = mismatched[0] if not missing else (missing[0],)
        got = f"no {key}{more}" if missing else f"{key}{more} of {tuple(sizes[0])} and not {tuple(sizes[1])}"
        expected = f"the weights of a {type(model).__name__} in {name}, whole"
        raise ConfigError("model", expected=expected, got=got, hint="another kind of model, or not all of its files")
    if looks_ahead(model):
        got = f"{type(model).__name__} as an encoder, whose tokens see those behind them"
        raise ConfigError("model", expected="a causal language model", got=got)
    return model


def load_language_model(base: BaseModel, tokenizer: Any) -> Any:
    """Load a causal language model.

    Args:
        base: The model.
        tokenizer: Its tokenizer, whose words the model must know.

    Raises:
        ConfigError: It cannot be loaded whole, a package for the quantization is missing or finds nothing to quantize,
            or the tokenizer has more words than the model.
    """
    options: dict[str, Any] = {"dtype": getattr(torch, base.dtype or "float32")}
    if base.quantization is not None:
        options["quantization_config"] = _quantization(base.quantization, options["dtype"])
    model = load_whole(base.name, trust_remote_code=base.trust_remote_code, **options)
    if base.quantization is not None and not any(quantized_format(part) is not None for part in model.modules()):
        expected = f"a model with linear layers that {_PACKAGES[base.quantization]} quantizes"
        hint = "set it to null, or try the other one"
        raise ConfigError("quantization", expected=expected, got=f"none in {type(model).__name__}", hint=hint)
    check_vocabulary(model, tokenizer)
    keep_differentiable(model)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False  # of no use in training, and in the way of checkpointing
    return model


def _quantization(kind: str, dtype: torch.dtype) -> Any:
    try:
        if kind == "nf4":
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
        from torchao.quantization import Int8WeightOnlyConfig  # noqa: PLC0415 - an optional package

        return TorchAoConfig(Int8WeightOnlyConfig())
    except ImportError as error:
        raise ConfigError(
            "quantization",
            expected="its package to be installed",
            got=str(error),
            hint="pip install 'randlora[quantized]'",
        ) from error


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Check that a model has a row for every token, whose numbers need not be without gaps.

    Args:
        model: The model.
        tokenizer: Its tokenizer.

    Raises:
        ConfigError: A token's number is above the model's.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    token, last = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    if last >= rows:
        raise ConfigError(
            "model",
            expected=f"a tokenizer with numbers below {rows:,}, as many words as the model knows",
            got=f"number {last:,} for {token!r}",
            hint="the tokenizer must be the model's own, without tokens added",
        )
