"""The one training path, on transformers' Trainer: configs, runs, records, the search over learning rates."""

from randlora.training.config import DataConfig, MethodConfig, OptimizationConfig, TrainConfig
from randlora.training.config_file import load_config
from randlora.training.evaluate import evaluate
from randlora.training.record import Record
from randlora.training.run import train
from randlora.training.search import search
from randlora.training.validation import validate

__all__ = [
    "DataConfig",
    "MethodConfig",
    "OptimizationConfig",
    "Record",
    "TrainConfig",
    "evaluate",
    "load_config",
    "search",
    "train",
    "validate",
]
