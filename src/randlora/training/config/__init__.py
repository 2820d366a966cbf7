"""What a run is: the sections of its config, how they are read and what is checked."""

from randlora.training.config.file import load_config
from randlora.training.config.sections import MethodConfig, OptimizationConfig, TrainConfig, resolve
from randlora.training.config.validation import validate

__all__ = ["MethodConfig", "OptimizationConfig", "TrainConfig", "load_config", "resolve", "validate"]
