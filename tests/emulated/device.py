"""A second device without hardware: "gpu", whose tensors lie in the CPU's memory and may not meet the CPU's own.

What runs on a CPU and not on a GPU fails mostly because a tensor was made, kept or read on the wrong device. That shows
anywhere: under `emulated_device` every operation is computed by the CPU, and refused, as by CUDA, where its tensors are
on different devices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

aten = torch.ops.aten


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_setup_privateuseone_for_python_backend("gpu", backend_module=_Backend())
GPU = torch.device("gpu", 0)

_COPIES = (aten.copy_.default, aten._to_copy.default)
_INDEXED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)


class _OnGpu(Tensor):
    """A tensor on the device, with the CPU's tensor that has its numbers; it is pickled as one."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> "_OnGpu":
        made = Tensor._make_wrapper_subclass(
            cls,
            on_cpu.shape,
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=GPU,
        )
        made.on_cpu = on_cpu
        return made

    def __reduce_ex__(self, _: Any) -> Any:
        return _OnGpu, (self.on_cpu,)

    def __repr__(self, **_: Any) -> str:
        return f"gpu:{self.on_cpu!r}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Also operations that make tensors, of which none is on the device yet."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


_OF_MEMORY = (Tensor.tolist, Tensor.data_ptr, Tensor.untyped_storage)


class _Made(TorchFunctionMode):
    """What PyTorch does without asking a dispatch mode: make tensors of Python's numbers, and give out memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _OF_MEMORY and isinstance(args[0], _OnGpu):
            return func(args[0].on_cpu)
        if func == Tensor.__getitem__:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            return func(args[0], tuple(torch.tensor(part) if isinstance(part, list) else part for part in index))
        if func not in (torch.tensor, torch.as_tensor) or kwargs.get("device") is None:
            return func(*args, **kwargs)
        return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = [tensor for tensor in given if isinstance(tensor, _OnGpu)]
    asked = kwargs.get("device")
    to_gpu = bool(here) if asked is None else torch.device(asked).type == "gpu"
    if here and func not in _COPIES:
        _check(func, args, given)
    wrapped = {id(tensor.on_cpu): tensor for tensor in here}
    args, kwargs = tree_map(lambda leaf: leaf.on_cpu if isinstance(leaf, _OnGpu) else leaf, (args, kwargs))
    if asked is not None and to_gpu:
        kwargs["device"] = torch.device("cpu")
    result = func(*args, **kwargs)
    if func is aten.copy_.default:
        to_gpu = id(args[0]) in wrapped

    def out(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not to_gpu:
            return leaf
        return wrapped[id(leaf)] if id(leaf) in wrapped else _OnGpu(leaf)

    return tree_map(out, result)


def _check(func: Any, args: Any, given: list[Tensor]) -> None:
    indices = set(map(id, tree_leaves(args[1]))) if func in _INDEXED else set()
    for tensor in given:
        if not isinstance(tensor, _OnGpu) and tensor.dim() > 0 and id(tensor) not in indices:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found one on {tensor.device}")


@contextmanager
def emulated_device() -> Iterator[torch.device]:
    """The device, for as long as tensors are made, moved and computed with."""
    with _Made(), _Mode():
        yield GPU
