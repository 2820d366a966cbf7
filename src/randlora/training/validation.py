"""Checks of a whole training config, before any data or model is loaded."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from randlora.adapter_config import check_choice
from randlora.errors import ConfigError, DataError, DeviceError, OutputError
from randlora.tasks.rows import check_source, is_local
from randlora.tasks.sources import locate
from randlora.training.adapter_configs import adapter_config
from randlora.training.config import MethodConfig, TrainConfig, resolve
from randlora.training.method_table import CHOICES, METHODS
from randlora.training.schema import check_values

SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup")
"""Learning-rate schedules that need nothing but the number of steps."""

Check = tuple[str, Callable[[Any], bool]]
_POSITIVE: Check = ("a number above 0", lambda value: 0 < value < math.inf)
_NOT_NEGATIVE: Check = ("a number of at least 0", lambda value: 0 <= value < math.inf)
_BELOW_ONE: Check = ("a number from 0 to below 1", lambda value: 0 <= value < 1)

RANGES: dict[str, Check] = {
    "seed": ("a whole number from 0 to 2^32 - 1", lambda value: 0 <= value < 2**32),
    "method.r": ("a whole number above 0", lambda value: value > 0),
    "method.alpha": _POSITIVE,
    "method.dropout": _BELOW_ONE,
    "method.seed": _NOT_NEGATIVE,
    "data.shots": ("a whole number above 0", lambda value: value > 0),
    "data.fraction": ("a number above 0, at most 1", lambda value: 0 < value <= 1),
    "data.max_length": ("a whole number above 0", lambda value: value > 0),
    "optimization.learning_rate": _POSITIVE,
    "optimization.head_learning_rate": _POSITIVE,
    "optimization.epochs": ("a number above 0, at most a million", lambda value: 0 < value <= 10**6),
    "optimization.max_steps": ("-1 or a whole number above 0", lambda value: value == -1 or value > 0),
    "optimization.batch_size": _POSITIVE,
    "optimization.eval_batch_size": _POSITIVE,
    "optimization.gradient_accumulation_steps": _POSITIVE,
    "optimization.weight_decay": _NOT_NEGATIVE,
    "optimization.warmup_ratio": _BELOW_ONE,
    "optimization.save_steps": _NOT_NEGATIVE,
    "optimization.dataloader_workers": _NOT_NEGATIVE,
    "optimization.max_grad_norm": _NOT_NEGATIVE,
}


_LARGEST = 2**31 - 1
"""Of whole numbers other than seeds: what libraries count with."""

_OF_TASK = {
    "encoders": "image-text",
    "pooling": "text-classification",
    "data.image_column": "image-text",
    "data.prompt_templates": "image-text",
    "data.augment": "image-text",
    "data.class_names": "image-text",
    "data.text_column": "text-classification",
    "data.max_length": "text-classification",
    "optimization.group_by_length": "text-classification",
}
"""Keys that only one task has a use for."""


def validate(config: TrainConfig) -> None:
    """Check everything that can be known before anything heavy is loaded.

    Args:
        config: The whole config.

    Raises:
        ConfigError: A value has the wrong type, is out of range, unknown, or in conflict with another one.
        DataError: A data file is missing or empty.
        DeviceError: The hardware for `device` or `precision` is not there.
        OutputError: The output folder cannot be written.
    """
    check_values(config)
    for key, (expected, holds) in RANGES.items():
        value = _lookup(config, key)
        if value is not None and not holds(value):
            raise ConfigError(key, expected=expected, got=repr(value))
        if isinstance(value, int) and value > _LARGEST and not key.endswith("seed"):
            raise ConfigError(key, expected="a whole number below 2^31", got=repr(value))
    check_choice("optimization.scheduler", config.optimization.scheduler, SCHEDULERS)
    _check_conflicts(config)
    resolved = resolve(config).method
    if resolved.name in METHODS:
        adapter_config(resolved)
    else:
        _check_method_without_adapter(config.method)
    if not config.model:
        raise ConfigError("model", expected="a hub id, a folder or package:NAME/PATH", got="nothing")
    locate(config.model)
    _check_data(config)
    check_device(config.optimization.device, config.optimization.precision)
    _check_output(config.output)


def check_device(device: str, precision: str) -> None:
    """Check that the device is there and computes in the precision.

    Raises:
        DeviceError: It is not, or does not.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("optimization.device", expected="a CUDA GPU", got="none", hint="set it to cpu or auto")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if precision == "bf16" and not (torch.cuda.is_bf16_supported() if on_gpu else _cpu_has_bf16()):
        where = "GPU" if on_gpu else "processor"
        raise DeviceError(
            "optimization.precision", expected=f"a precision this {where} has", got="bf16", hint="set it to fp32"
        )
    if precision == "fp16" and not on_gpu:
        raise DeviceError(
            "optimization.precision", expected="fp32 or bf16 without a GPU", got="fp16", hint="set it to fp32"
        )


def _cpu_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _lookup(config: TrainConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _check_conflicts(config: TrainConfig) -> None:
    data = config.data
    if data.shots is not None and data.fraction is not None:
        raise ConfigError("data.shots", expected="either shots or a fraction", got="both", hint="remove one of them")
    if not data.prompt_templates:
        raise ConfigError("data.prompt_templates", expected="at least one template", got="none")
    for template in data.prompt_templates:
        if template.count("{}") != 1:
            raise ConfigError("data.prompt_templates", expected="templates with one {} each", got=repr(template))
    start = TrainConfig()
    for key, task in _OF_TASK.items():
        value, default = _lookup(config, key), _lookup(start, key)
        if config.task != task and value != default:
            expected = f"{str(default).lower()}, for any task but {task}"
            raise ConfigError(key, expected=expected, got=repr(value), hint=f"{config.task} has no use for it")
    rate = config.optimization.head_learning_rate
    if rate is not None and config.task == "image-text" and config.method.name != "head":
        hint = "the head is made of prompts and not trained"
        raise ConfigError("optimization.head_learning_rate", expected="none with image-text", got=repr(rate), hint=hint)


def _check_method_without_adapter(method: MethodConfig) -> None:
    """Check that "full" and "head", which have no adapter, are not told how to make one."""
    start = MethodConfig()
    for key in ("alpha", "dropout", *CHOICES, "target_modules", "exclude_modules", "options"):
        value = getattr(method, key)
        if value != getattr(start, key):
            raise ConfigError(f"method.{key}", expected=f"none for {method.name}", got=repr(value))


def _check_data(config: TrainConfig) -> None:
    data = config.data
    if not data.train:
        raise DataError("data.train", expected="a hub name, a data file or an image folder", got="nothing")
    check_source(data.train, "data.train")
    if data.test is not None:
        check_source(data.test, "data.test")
    elif is_local(data.train):
        raise DataError("data.test", expected="a file or folder with test data", got="none")


def _check_output(output: str) -> None:
    """Check that the folder, or the nearest one above it that exists, can be written."""
    if not output:
        raise OutputError("output", expected="a folder for the run", got="nothing")
    folder = Path(output).expanduser()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError("output", expected="a folder", got=f"{folder}, which is a file")
    try:  # rights alone do not tell: the file system may be read-only or full
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
    except OSError as error:
        raise OutputError(
            "output",
            expected="a folder that can be written",
            got=f"{folder}: {error.strerror}",
            hint="choose another one",
        ) from error
