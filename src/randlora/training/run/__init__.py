"""The one path from a config to a run's folder."""

from randlora.training.run.record import Record
from randlora.training.run.training_run import train

__all__ = ["Record", "train"]
