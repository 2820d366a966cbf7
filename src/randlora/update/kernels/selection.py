"""Whether the Triton forms may be used for a tensor."""

import os
from importlib.util import find_spec

import torch
from torch import Tensor

# Read once: a switch during a run would leave compiled graphs with the old choice.
_REQUESTED = os.environ.get("RANDLORA_TRITON") == "1" and find_spec("triton") is not None
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def available(tensor: Tensor) -> bool:
    """Whether this tensor is to be computed with by the Triton kernels.

    They are opt-in, since they have never run on hardware: Triton's interpreter has checked their values and its
    compiler has built them for CUDA, but nobody has measured that they are faster, or seen them run. So four things
    have to hold:

    - the environment variable RANDLORA_TRITON is 1, and Triton can be imported, when `randlora` is first imported;
    - the tensor is on a CUDA device;
    - it is float32, bfloat16 or float16 (the kernels sum in float32, too coarse for float64);
    - autograd is not recording: the kernels have no derivatives of their own, the strategies call them inside theirs.

    Args:
        tensor: The weight or the gradient that the kernel would read.
    """
    return _REQUESTED and tensor.is_cuda and tensor.dtype in _DTYPES and not torch.is_grad_enabled()
