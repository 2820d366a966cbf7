"""Kernels of the update for CUDA: a PyTorch form, a Triton form, an operator each. See README.md beside this file."""

from randlora.update.kernels.fold import structured_fold
from randlora.update.kernels.gradients import structured_gradients
from randlora.update.kernels.selection import available

__all__ = ["available", "structured_fold", "structured_gradients"]
