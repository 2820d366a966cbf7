"""Pieces of memory that are used again and again for what lives only within a call, on the CPU.

A folded weight lives for one product, and so do the coefficients of dense bases. Allocated afresh, their pages come
from the operating system each time, and mapping them takes several times as long as filling them. Devices with a
caching allocator of PyTorch's need none of this.
"""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

_held = threading.local()


def eager_on_cpu(tensor: Tensor) -> bool:
    """Whether operations on this tensor run at once on the CPU: no tracing, no autograd, no vmap."""
    return tensor.device.type == "cpu" and type(tensor) in (Tensor, torch.nn.Parameter) and eager(tensor)


def eager(tensor: Tensor) -> bool:
    """Whether operations on this tensor run at once, on any device, so that they may write to `out=`."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    return not is_functorch_wrapped_tensor(tensor)


def scratch(purpose: str, like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor | None:
    """Memory to be written to as `out=`, until the next call of this thread for the same purpose.

    Args:
        purpose: What for; pieces for different purposes do not overlap.
        like: A tensor on the device where the memory is wanted.
        shape: Its shape.
        dtype: Its dtype; that of `like` by default.

    Returns:
        Contiguous memory; None where an allocation of its own serves better (another device, tracing, autograd, vmap).
    """
    if not eager_on_cpu(like):
        return None
    dtype = dtype or like.dtype
    size = 1
    for length in shape:
        size *= length
    buffers: dict[tuple[str, torch.dtype], Tensor] = _held.__dict__.setdefault("buffers", {})
    held = buffers.get((purpose, dtype))
    if held is None or held.numel() < size:
        with torch.inference_mode(mode=False):  # first used in inference, it must serve training too
            held = buffers[purpose, dtype] = torch.empty(size, dtype=dtype, device=like.device)
    return held[:size].view(shape)


def scratch_like(purpose: str, like: Tensor) -> Tensor | None:
    """`scratch` in the shape, dtype and layout of a matrix (a, b) that lies row by row or column by column."""
    if like.is_contiguous():
        return scratch(purpose, like, like.shape)
    if like.T.is_contiguous():
        turned = scratch(purpose, like, like.T.shape)
        return None if turned is None else turned.T
    return None


def release_scratch() -> None:
    """Give this thread's pieces of memory back; the next call that needs one allocates it anew."""
    _held.__dict__.clear()
