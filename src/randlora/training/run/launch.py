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
    if _asked("ACCELERATE_USE_FSDP") and on_cpu:
        raise DeviceError(
            "FSDP",
            expected="GPUs, without which accelerate shards nothing",
            got="CPUs",
            hint="leave --use_fsdp out: every process then holds the whole model",
        )
    if _asked("ACCELERATE_USE_MEGATRON_LM"):
        raise ConfigError("--use_megatron_lm", expected="DDP, FSDP or DeepSpeed", got="Megatron-LM")
    if _asked("ACCELERATE_USE_CPU") and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        note("one process trains: 'accelerate launch --cpu' starts others only with MPI; torchrun starts them")


def _check_deepspeed(*, on_cpu: bool) -> None:
    if find_spec("deepspeed") is None:
        raise DeviceError("DeepSpeed", expected="its package", got="none installed", hint="pip install deepspeed")
    if on_cpu:
        raise DeviceError("DeepSpeed", expected="GPUs", got="CPUs", hint="leave --use_deepspeed out")


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")
