"""Checks of a whole training config, before any data or model is loaded."""

import importlib.util
import tempfile

import torch
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from randlora.adapter_config import check_choice
from randlora.errors import ConfigError, DeviceError, OutputError
from randlora.files import expanded
from randlora.tasks import TASKS
from randlora.tasks.sources import locate
from randlora.training.config.adapter_configs import adapter_config
from randlora.training.config.method_table import CHOICES, METHODS
from randlora.training.config.schema import check_values
from randlora.training.config.sections import MethodConfig, OptimizationConfig, TrainConfig, resolve
from randlora.training.config.start import searches_ranks


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
    _check_optimization(config.optimization)
    _check_validation(config)
    _check_search(config)
    _check_base(config)
    check_method_section(config)
    if not config.model:
        raise ConfigError("model", expected="a hub id, a folder or package:NAME/PATH", got="nothing")
    locate(config.model)
    TASKS[config.task].check(config.data)
    _check_trackers(config.report_to)
    if config.push_to_hub in ("true", "false"):  # as in transformers, where the name is another key
        raise ConfigError("push_to_hub", expected="a repository's name", got=config.push_to_hub)
    check_device(config.optimization.device, config.optimization.precision)
    _check_output(config.output)


def check_method_section(config: TrainConfig) -> None:
    """Check that the method has a use for every key that it is given, and the task one for the method.

    Raises:
        ConfigError: It has not.
    """
    resolved = resolve(config).method
    if resolved.name in METHODS:
        TASKS[config.task].check_method(config.data, adapter_config(resolved))
    else:
        _check_method_without_adapter(config.method)


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


def _check_optimization(optimization: OptimizationConfig) -> None:
    check_choice("optimization.optimizer", optimization.optimizer, [name.value for name in OptimizerNames])
    if optimization.max_steps == 0:
        raise ConfigError("optimization.max_steps", expected="-1 or a whole number above 0", got="0")
    every, saved = optimization.eval_steps, optimization.save_steps
    if optimization.keep_best and every and (not saved or saved % every):
        expected = f"a multiple of eval_steps, {every}, so that the best scored is one that was saved"
        raise ConfigError("optimization.save_steps", expected=expected, got=str(saved))


def _check_validation(config: TrainConfig) -> None:
    """Check that what is chosen on a validation split has one, and that a head's learning rate has a head."""
    optimization = config.optimization
    keys = ("keep_best", "early_stopping", "eval_steps")
    choosing = [f"optimization.{key}" for key in keys if getattr(optimization, key)]
    if searches_ranks(config):
        choosing.append(f"method.name {config.method.name}")
    if choosing and config.data.validation is None:
        hint = "a file, a hub split, or a share of the training data such as 0.1"
        raise ConfigError("data.validation", expected=f"one, for {choosing[0]}", got="none", hint=hint)
    rate = optimization.head_learning_rate
    if rate is not None and not _trains_head(config):
        hint = "no head is trained"
        expected = f"none with {config.task}"
        raise ConfigError("optimization.head_learning_rate", expected=expected, got=repr(rate), hint=hint)


def _trains_head(config: TrainConfig) -> bool:
    """Whether a head is trained: the task's, or DePT's beside prompts."""
    method = config.method
    start = METHODS[method.name].start if method.name in METHODS else {}
    return TASKS[config.task].trained_head or method.name == "head" or bool({**start, **method.options}.get("transfer"))


def _check_search(config: TrainConfig) -> None:
    """Check that a search for ranks can be done where one is asked for."""
    if not searches_ranks(config):
        return
    name = config.method.name
    if config.optimization.precision == "fp16":
        hint = "the search takes gradients that are not scaled; set it to bf16 or fp32"
        raise ConfigError("optimization.precision", expected=f"bf16 or fp32 with {name}", got="fp16", hint=hint)
    if config.task == "preference":
        hint = "search on task sft, and go on from that run with start_from"
        raise ConfigError("method.name", expected="another method with preference", got=name, hint=hint)


def _check_base(config: TrainConfig) -> None:
    """Check that the dtype and the quantization of the base model have a use."""
    for key in ("dtype", "quantization"):
        if getattr(config, key) is not None and not TASKS[config.task].takes_dtype:
            hint = f"{config.task} loads its model in float32"
            raise ConfigError(key, expected="none", got=repr(getattr(config, key)), hint=hint)
    if config.quantization is not None:
        if config.method.name not in METHODS:
            hint = "weights of a few bits cannot be trained"
            raise ConfigError(
                "quantization", expected=f"none with {config.method.name}", got=config.quantization, hint=hint
            )
        package = {"nf4": "bitsandbytes", "int8": "torchao"}[config.quantization]
        if importlib.util.find_spec(package) is None:
            hint = "pip install 'randlora[quantized]'"
            raise ConfigError("quantization", expected=f"the package {package}", got="none", hint=hint)


def _check_trackers(names: list[str]) -> None:
    """Check that the trackers are known to transformers and installed."""
    for name in names:
        check_choice("report_to", name, [*INTEGRATION_TO_CALLBACK])
        if name not in get_available_reporting_integrations():
            raise ConfigError("report_to", expected="trackers that are installed", got=name, hint=f"pip install {name}")


def _check_method_without_adapter(method: MethodConfig) -> None:
    """Check that "full" and "head", which have no adapter, are not told how to make one."""
    start = MethodConfig()
    for key in ("alpha", "dropout", *CHOICES, "target_modules", "exclude_modules", "options"):
        value = getattr(method, key)
        if value != getattr(start, key):
            raise ConfigError(f"method.{key}", expected=f"none for {method.name}", got=repr(value))


def _check_output(output: str) -> None:
    """Check that the folder, or the nearest one above it that exists, can be written."""
    if not output:
        raise OutputError("output", expected="a folder for the run", got="nothing")
    folder = expanded(output)
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
