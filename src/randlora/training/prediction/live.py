"""Memory of what a computation would hold, counted while it runs on tensors that have shapes and no numbers."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten


class LiveMemory(TorchDispatchMode):
    """Counts the bytes that are allocated and not yet given back, while operations run under it.

    Numbers with a fraction are fake (`FakeTensorMode`: shapes, dtypes and devices), so a step of any size takes next to
    no memory or time. Whole numbers and truth values stay real wherever they come of real ones, as code may branch on
    them: token ids, positions, masks. What is read from a fake tensor is a nought.

    `torch.distributed._tools.mem_tracker.MemTracker` counts the same, but under a mode in which nothing is real, and
    models of transformers ask their masks and positions.

    Args:
        fakes: What makes tensors fake; `allow_non_fake_inputs` must be on.

    Attributes:
        held: Bytes allocated under it that are in use now.
        peak: Most of them at one time.
    """

    def __init__(self, fakes: FakeTensorMode) -> None:
        super().__init__()
        self.fakes = fakes
        self.held = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count what it allocates."""
        del types
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func is _aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return torch.zeros((), dtype=args[0].dtype).tolist()
        if func is _aten.index.Tensor:
            args = (args[0], list(_as_positions(args[1])))
        result = func(*args, **kwargs) if given else self._made(func, args, kwargs)
        before = {tensor.untyped_storage()._cdata for tensor in given}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in before:
                self._count(tensor)
        return result

    def _made(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What an operation makes of no tensor: fake, but for whole numbers and truth values."""
        with self.fakes:
            result = func(*args, **kwargs)
        with_fraction = isinstance(result, Tensor) and result.dtype.is_floating_point
        return result if with_fraction else func(*args, **kwargs)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()

        def release(_: Any) -> None:
            self.held -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, release)
        self.held += size
        self.peak = max(self.peak, self.held)


def _as_positions(index: Sequence[Tensor | None]) -> Iterator[Tensor | None]:
    """Masks as the positions at which they are true, whose number is known where the mask is real."""
    for each in index:
        if each is not None and each.dtype == torch.bool and not isinstance(each, FakeTensor):
            yield from each.nonzero().unbind(1)
        else:
            yield each
