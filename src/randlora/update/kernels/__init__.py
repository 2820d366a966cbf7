"""Kernels of the update for CUDA: a PyTorch form, a Triton form, an operator each. See README.md beside this file."""

from randlora.update.kernels.fold import structured_fold
from randlora.update.kernels.gradients import structured_gradients
from randlora.update.kernels.packing import pack_ternary, unpack_ternary
from randlora.update.kernels.selection import available
from randlora.update.kernels.ternary import ternary_fold, ternary_product

__all__ = [
    "available",
    "pack_ternary",
    "structured_fold",
    "structured_gradients",
    "ternary_fold",
    "ternary_product",
    "unpack_ternary",
]
