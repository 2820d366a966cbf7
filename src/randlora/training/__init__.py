"""The one training path, on transformers' Trainer: configs, runs, records, the search over learning rates."""

from randlora.tasks import DataConfig, ImageData, ImageTextData, PreferenceData, SftData, TextData
from randlora.training.config import MethodConfig, OptimizationConfig, TrainConfig, load_config, validate
from randlora.training.run import Record, train
from randlora.training.run.evaluation import evaluate
from randlora.training.search import Found, search

__all__ = [
    "DataConfig",
    "Found",
    "ImageData",
    "ImageTextData",
    "MethodConfig",
    "OptimizationConfig",
    "PreferenceData",
    "Record",
    "SftData",
    "TextData",
    "TrainConfig",
    "evaluate",
    "load_config",
    "search",
    "train",
    "validate",
]
