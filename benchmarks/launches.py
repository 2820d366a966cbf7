"""What a call would launch on a GPU: operations, multiply-adds and bytes, counted on tensors that hold nothing.

Fake tensors have shapes, dtypes and strides, and no memory. `randlora.update.scratch` takes them for tensors of a
device with an allocator of its own, so that the operations counted are those of a GPU; which kernels its libraries
choose, and what they copy to please them, fake tensors cannot tell.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_PRODUCTS = ("mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_")
# Tell or name, and touch no data.
_NO_KERNEL = ("detach", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "device", "lift_fresh")
# Filling the result and copying into it.
_TWO_KERNELS = ("constant_pad_nd",)


@dataclass
class Traffic:
    """What a pass launches.

    Attributes:
        launches: Kernels; an operation is one.
        flops: Floating point operations of the products, two for each multiply-add.
        bytes: Read and written, each operand and result once.
        names: The operation of each, in order.
        costs: Of each: flops, bytes, and bytes of an entry of its result.
    """

    launches: int = 0
    flops: int = 0
    bytes: int = 0
    names: list[str] = field(default_factory=list)
    costs: list[tuple[int, int, int]] = field(default_factory=list)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._opname
        if func.is_view or name in _NO_KERNEL:
            return result
        flops, moved = _flops(name, args), sum(map(touched_bytes, _moved(func, args, kwargs or {}, result)))
        traffic = self.traffic
        traffic.launches += 2 if name in _TWO_KERNELS else 1
        traffic.flops += flops
        traffic.bytes += moved
        traffic.names.append(name)
        traffic.costs.append((flops, moved, tree_leaves(result)[0].element_size()))
        return result


def _flops(name: str, args: Sequence[Any]) -> int:
    if name not in _PRODUCTS:
        return 0
    left, right = args[-2:]
    return 2 * left.numel() * right.shape[-1]


def _moved(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> Iterator[Tensor]:
    """Every operand that is read, every result that is written; what is changed in place is both."""
    beta = kwargs.get("beta", 1)
    reads = args[1:] if func._opname in ("addmm", "baddbmm") and beta == 0 else args
    yield from (leaf for leaf in tree_leaves(reads) if isinstance(leaf, Tensor))
    yield from (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


def touched_bytes(tensor: Tensor) -> int:
    """Bytes of the entries that are there, those that a broadcast repeats once."""
    entries = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        entries *= length if stride else min(length, 1)
    return entries * tensor.element_size()


def count(model: nn.Module, rows: int, width: int, *, autocast: bool) -> tuple[Traffic, Traffic]:
    """The forward and the backward pass of a model on one matrix of inputs.

    Args:
        model: In the dtype it is to run in; its numbers are not read.
        rows: T.
        width: Of the input.
        autocast: Run the forward pass under autocast to bfloat16.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # the frozen bases, which are no parameters
    tensors = {name: _leaf(fake, p) for name, p in (*model.named_parameters(), *model.named_buffers())}
    with fake:
        x = torch.empty(rows, width, dtype=torch.bfloat16, requires_grad=True)

        def forward() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                return torch.func.functional_call(model, tensors, (x,))

        forward()  # what is only done once: bases cast to a dtype
        output, ahead = _counted(forward)
        direction = torch.empty_like(output)
        _, back = _counted(lambda: output.backward(direction))
    return ahead, back


def _leaf(fake: FakeTensorMode, tensor: Tensor) -> Tensor:
    return fake.from_tensor(tensor).detach().requires_grad_(tensor.requires_grad)


def _counted(call: Callable[[], Any]) -> tuple[Any, Traffic]:
    with _Counter() as counter:
        result = call()
    return result, counter.traffic
