"""What a launcher has asked of a run's processes, by environment variables, checked before they meet."""

import os
from importlib.util import find_spec

import torch

from randlora.errors import ConfigError, DeviceError
from randlora.messages import note
from randlora.training.config.sections import TrainConfig


def check_launch(config: TrainConfig) -> None:
    """Refuse what the launcher has asked for and this machine, or a run, cannot do.

    Args:
        config: The run's config.

    Raises:
        ConfigError: It is a way to train that a run has not.
        DeviceError: A package or an accelerator is missing.
    """
    on_cpu = config.optimization.device == "cpu" or not torch.cuda.is_available()
    if _asked("ACCELERATE_USE_DEEPSPEED"):
        _check_deepspeed(on_cpu=on_cpu)
    if _asked("ACCELERATE_USE_FSDP"):
        _check_fsdp(config, on_cpu=on_cpu)
    if _asked("ACCELERATE_USE_MEGATRON_LM"):
        raise ConfigError("--use_megatron_lm", expected="DDP, FSDP or DeepSpeed", got="Megatron-LM")
    if _asked("ACCELERATE_USE_CPU") and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        note("one process trains: 'accelerate launch --cpu' starts others only with MPI; torchrun starts them")


def sharding() -> str:
    """How the launcher shares the model out among the processes, in words; empty where each has the whole."""
    if _asked("ACCELERATE_USE_FSDP"):
        return f"FSDP with {os.environ.get('FSDP_STATE_DICT_TYPE', 'SHARDED_STATE_DICT')}"
    return "DeepSpeed" if _asked("ACCELERATE_USE_DEEPSPEED") else ""


def _check_fsdp(config: TrainConfig, *, on_cpu: bool) -> None:
    if on_cpu:
        hint = "leave --use_fsdp out: every process then holds the whole model"
        raise DeviceError("FSDP", expected="GPUs, without which accelerate shards nothing", got="CPUs", hint=hint)
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        hint = "--fsdp_version 2; a model that version 1 has sharded does not generate"
        raise ConfigError("FSDP", expected="version 2", got=version, hint=hint)
    if config.quantization == "int8":
        hint = "nf4, or leave --use_fsdp out"
        raise ConfigError(
            "quantization", expected="nf4 or null with FSDP", got="int8, which torchao cannot shard", hint=hint
        )
    if config.method.name == "adalora":
        hint = "leave --use_fsdp out: every process then holds the whole model"
        raise ConfigError("method.name", expected="one that FSDP can shard", got="adalora", hint=hint)
    if config.optimization.keep_best:
        hint = "set it to false; the checkpoint of a sharded model is not read back at the end"
        raise ConfigError("optimization.keep_best", expected="false with FSDP", got="true", hint=hint)


def _check_deepspeed(*, on_cpu: bool) -> None:
    if find_spec("deepspeed") is None:
        raise DeviceError("DeepSpeed", expected="its package", got="none installed", hint="pip install deepspeed")
    if on_cpu:
        raise DeviceError("DeepSpeed", expected="GPUs", got="CPUs", hint="leave --use_deepspeed out")


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")
