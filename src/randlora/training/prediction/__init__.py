"""Peak memory of a run, predicted from one step on tensors without numbers."""

from randlora.training.prediction.from_config import predict_from_config
from randlora.training.prediction.step import Prediction, predict

__all__ = ["Prediction", "predict", "predict_from_config"]
