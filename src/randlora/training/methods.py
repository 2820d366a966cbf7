"""Methods: a pre-trained model and a method config in, a model with its trainable parameters out."""

import gc
import re
from collections.abc import Mapping
from typing import Any

import peft
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers, check_target_module_exists
from peft.utils.error import NoMatchingPeftModuleError
from torch import nn

from randlora.errors import ConfigError, LayerError, RandLoraError
from randlora.formats import load_adapter
from randlora.methods.autolora import select_terms
from randlora.methods.budget import fit_rank
from randlora.methods.prompts.beside import in_json
from randlora.tasks import Task
from randlora.tasks.sources import BaseModel
from randlora.training.config.adapter_configs import adapter_config, beside, key_of, takes
from randlora.training.config.method_options import PATTERNS
from randlora.training.config.method_table import METHODS
from randlora.training.config.sections import MethodConfig, TrainConfig
from randlora.training.config.start import adapter_of

_OF_PEFT = (
    ValueError,
    TypeError,
    RuntimeError,
    AssertionError,
    AttributeError,
    LookupError,
    ArithmeticError,
    ImportError,
)
"""What PEFT raises for layers that it cannot adapt, and for options that it does not check."""


def load_model(task: Task, config: TrainConfig) -> None:
    """Load the config's pre-trained model for its task.

    Raises:
        ConfigError: The model cannot be loaded or is of another kind.
        DataError: The data section does not fit it.
    """
    # What this process has trained before may refer to its model in circles; the two need not stand side by side.
    task.__dict__.pop("backbone", None)
    gc.collect()
    options = (config.trust_remote_code, config.dtype, config.quantization, adapter_of(config))
    task.load_model(BaseModel(config.model, *options))
    if config.attn_implementation is not None:
        _set_attention(task.backbone, config.attn_implementation)
    if config.optimization.gradient_checkpointing:
        task.backbone.gradient_checkpointing_enable({"use_reentrant": False})


def _set_attention(backbone: Any, implementation: str) -> None:
    key, kind = "attn_implementation", type(backbone).__name__
    try:
        backbone.set_attn_implementation(implementation)
    except (ImportError, ValueError) as error:  # a package is missing, or the model's class refuses
        got = f"{implementation}: {str(error).strip().splitlines()[0]}"
        raise ConfigError(key, expected=f"one that works here for a {kind}", got=got) from error
    if backbone.config._attn_implementation != implementation:  # transformers has only warned
        raise ConfigError(key, expected=f"null for a {kind}, which has one attention", got=implementation)


def build(task: Task, method: MethodConfig, start: str | None = None) -> nn.Module:
    """Apply a method to a task's backbone and wrap it as the task trains it.

    Args:
        task: The task, with its backbone; the backbone is changed in place.
        method: The method, resolved.
        start: An adapter folder to go on with; None begins a new adapter.

    Returns:
        The model to train; exactly its trained parameters have `requires_grad`.

    Raises:
        LayerError: No layer matches `method.target_modules`, or a layer of another kind does.
    """
    train_head = method.name == "head"
    if method.name in METHODS:
        adapted = load_adapter(task.backbone, start, is_trainable=True) if start else attach(task, method)
    else:
        adapted = task.backbone
        adapted.requires_grad_(not train_head)
        for name in (*task.head, *task.frozen):
            part = getattr(adapted, name, None)
            if part is not None:
                part.requires_grad_(name in task.head)
    return task.wrap(adapted, train_head=train_head)


def is_head(name: str, task: Task) -> bool:
    """Whether the parameter called `name` belongs to the task's head."""
    return not set(task.head).isdisjoint(name.split("."))


def attach(task: Task, method: MethodConfig) -> nn.Module:
    """Put a method's adapter on a task's backbone.

    Raises:
        ConfigError: A value of the method's does not fit.
        LayerError: No layer matches, or one that the method cannot adapt does.
    """
    adapting = beside(method) or method
    try:
        config: Any = peft_config(task, method)
        adapted = peft.get_peft_model(task.backbone, config)
        _check_names(config, adapted)
    except ConfigError as error:
        key = key_of(method, error.what)
        raise ConfigError(key, expected=error.expected, got=error.got, hint=error.hint) from error
    except RandLoraError:
        raise
    except NoMatchingPeftModuleError as error:
        raise LayerError(
            key_of(method, "target_modules"),
            expected="names of layers, or a regular expression of them",
            got=f"{adapting.target_modules or 'all-linear'!r}: {str(error).splitlines()[0]}",
        ) from error
    except _OF_PEFT as error:
        if isinstance(error, IndexError) and adapting.options.get("trainable_token_indices"):
            key, expected = "method.options.trainable_token_indices", "tokens of the vocabulary"
            raise ConfigError(key, expected=expected, got=str(error)) from error
        raise LayerError(
            key_of(method, "target_modules"),
            expected=f"layers that {adapting.name} can adapt",
            got=f"{adapting.target_modules or 'all-linear'!r}: {str(error) or type(error).__name__}",
            hint="choose others, or see method.options",
        ) from error
    if method.name == "autolora":
        select_terms(adapted)
    return adapted


def _check_names(config: Any, adapted: Any) -> None:
    """Raise where PEFT has passed over a parameter that is to be adapted, or over what has a value of its own."""
    found = getattr(adapted.base_model, "targeted_parameter_names", [])
    for name in getattr(config, "target_parameters", None) or []:
        if not any(f".{parameter}".endswith(f".{name}") for parameter in found):
            what, expected = f"method.options.target_parameters entry {name!r}", "the name of a parameter of the model"
            raise LayerError(what, expected=expected, got="none that ends so")
    layers = [*getattr(adapted.base_model, "targeted_module_names", []), *found]
    for field in () if isinstance(config, peft.OSFConfig) else PATTERNS:  # OSF looks for them anywhere in a name
        for name in getattr(config, field, None) or []:
            if not any(re.match(rf"(.*\.)?({name})$", layer) for layer in layers):
                what, expected = f"method.options.{field} entry {name!r}", "the name of an adapted layer"
                raise LayerError(what, expected=expected, got="none that ends so")


def peft_config(task: Task, method: MethodConfig) -> peft.PeftConfig:
    """The PEFT config of a method on a task's backbone; a rank that is as LoRA's is found.

    Raises:
        ConfigError: A value of the method's does not fit.
        LayerError: No layer matches.
    """
    if not takes(method.name, "target_modules"):
        inputs: Any = adapter_config(method)
        task.settle(inputs)
        other = beside(method)
        if other is not None:
            inputs.adapter = in_json(peft_config(task, other))
        return inputs
    targets = method.target_modules or (_norms(task.backbone) if method.name == "ln_tuning" else "all-linear")
    exclusion = _exclusion(task.frozen, method.exclude_modules)
    common: dict[str, Any] = {
        "modules_to_save": [name for name in task.head if hasattr(task.backbone, name)] or None,
        "task_type": task.task_type,
    }
    if takes(method.name, "exclude_modules"):
        common["exclude_modules"] = exclusion
    elif exclusion is not None:
        targets = _matching(task, targets, exclusion, method.options)
    config: Any = adapter_config(method, target_modules=targets, **common)
    if isinstance(method.r, dict):
        return fit_rank(config, task.backbone, lora_rank=method.r["as_lora"], within=0.1)
    return config


def _norms(backbone: nn.Module) -> list[str]:
    """Names of the layers that LN tuning is for: of others it would train every weight."""
    return [name for name, part in backbone.named_modules() if type(part).__name__.endswith("Norm")]


def _matching(task: Task, targets: list[str] | str, exclusion: str, options: Mapping[str, Any]) -> list[str]:
    """Full names of the target modules, for a method whose config of PEFT cannot exclude any."""
    # By its full name PEFT adapts a layer of any block.
    blocks = {name: options[name] for name in ("layers_to_transform", "layers_pattern") if name in options}
    common: dict[str, Any] = {"exclude_modules": exclusion, "task_type": task.task_type, **blocks}
    probe: Any = peft.LoraConfig(target_modules=targets, **common)
    probe = _maybe_include_all_linear_layers(probe, task.backbone)
    return [name for name, _ in task.backbone.named_modules() if check_target_module_exists(probe, name)]


def _exclusion(frozen: tuple[str, ...], user: list[str] | str | None) -> str | None:
    """One regular expression for the task's frozen parts and what the user excludes."""
    patterns = [rf"{re.escape(name)}(\..*)?" for name in frozen]
    if isinstance(user, str):
        patterns.append(user)
    elif user:
        patterns.extend(rf"(.*\.)?{re.escape(name)}" for name in user)
    return "|".join(f"(?:{pattern})" for pattern in patterns) or None
