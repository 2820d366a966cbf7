"""A piece of memory that is used again and again for folded weights on the CPU.

A folded weight lives for one product. Allocated afresh, its pages come from the operating system each time, and mapping
them takes several times as long as the fold itself. Devices with a caching allocator of PyTorch's need none of this.
"""

import threading

import torch
from torch import Tensor

_held = threading.local()


def scratch(like: Tensor) -> Tensor | None:
    """Memory in the shape, dtype and layout of a matrix, to be overwritten by the next call of this thread.

    Args:
        like: A matrix (a, b), row by row or column by column.

    Returns:
        The memory; None where an allocation of its own serves better (another device, tracing, another layout).
    """
    if torch.compiler.is_compiling() or like.device.type != "cpu" or type(like) not in (Tensor, torch.nn.Parameter):
        return None
    if like.T.is_contiguous() and not like.is_contiguous():
        turned = scratch(like.T)
        return None if turned is None else turned.T
    if not like.is_contiguous():
        return None
    buffers: dict[torch.dtype, Tensor] = _held.__dict__.setdefault("buffers", {})
    if like.dtype not in buffers or buffers[like.dtype].numel() < like.numel():
        with torch.inference_mode(mode=False):  # first used in inference, it must serve training too
            buffers[like.dtype] = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
    return buffers[like.dtype][: like.numel()].view(like.shape)
