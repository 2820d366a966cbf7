"""Dense random bases: one pair (A, B) per family and seed, shared by every layer, adapter and model of the process.

Entry (i, j) of A and of B is a pure function of the seed and of (i, j), so every layer's bases are the leading block of
one stored pair, whatever its shape and rank. All entries are exact in bfloat16 and float16 (at most 8 significant
bits): the bases are the same numbers in every dtype, and the factor that gives them unit variance is kept outside.
"""

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from math import sqrt
from statistics import NormalDist
from typing import Any, Literal, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from randlora.bases.rng import random_words
from randlora.update import DenseForm, Sizes, SparseForm

Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])
DenseFamily = Literal["uniform", "normal", "ternary"]

_STREAM_A, _STREAM_B = 0, 1
_SPARSEST_DENSE = 1 / 8  # B with fewer entries that are not zero is given by rows too, on a CPU (benchmarks/ternary.py)
_ENTRIES_PER_DRAW = 1 << 22  # int64 words are drawn in slabs of this many entries, to bound the memory of a draw


def draw(
    family: DenseFamily,
    seed: int,
    stream: int,
    rows: range,
    columns: int,
    sparsity: float,
    device: torch.device,
) -> Tensor:
    """Draw some rows of a basis matrix, (len(rows), columns), float32, before its scale (see `unit_scale`).

    - `uniform`: the 256 odd multiples of 1/128 in (-2, 2), equally likely.
    - `normal`: 65,536 equally likely Gaussian quantiles, rounded to 8 significant bits.
    - `ternary`: -1 and 1 with probability 1/s each, else 0 (paper § 6.4).
    """
    if family == "uniform":
        words = random_words(seed, stream, rows, -(-columns // 4), device)
        entries = torch.stack([(words >> shift) & 0xFF for shift in (0, 8, 16, 24)], dim=-1)
        return ((2 * entries - 255).reshape(len(rows), -1)[:, :columns]).float() / 128
    if family == "normal":
        words = random_words(seed, stream, rows, -(-columns // 2), device)
        entries = torch.stack([words & 0xFFFF, words >> 16], dim=-1).reshape(len(rows), -1)[:, :columns]
        return _normal_quantiles().to(device)[entries]
    words = random_words(seed, stream, rows, columns, device)
    threshold = int(2**32 / sparsity)
    return (words < threshold).float() - (words >= 2**32 - threshold).float()


@lru_cache(maxsize=1)
def _normal_quantiles() -> Tensor:
    """The quantiles at (i + 1/2) / 65,536. Rounding to 8 bits hides any last-bit difference between math libraries."""
    quantile = NormalDist().inv_cdf
    # On the CPU whatever the caller's default device is, and usable in training though first drawn in inference mode.
    with torch.inference_mode(mode=False), torch.device("cpu"):
        upper = torch.tensor([quantile(0.5 + (i + 0.5) / 65536) for i in range(32768)], dtype=torch.float64)
        return torch.cat([-upper.flip(0), upper]).bfloat16().float()


def unit_scale(family: DenseFamily, sparsity: float) -> float:
    """The factor that gives the entries of `draw` unit variance."""
    if family == "uniform":
        return 128 / sqrt((256**2 - 1) / 3)
    if family == "normal":
        return 1 / sqrt(_normal_quantiles().double().square().mean().item())
    return sqrt(sparsity / 2)


class DenseBases:
    """The shared pair A (r × m) and B (M × r·n) of one family, seed and sparsity.

    Column k·n + j of B is column k of the paper's B_j. Obtain it with `dense_bases`, which returns the same object
    for the same arguments. The pair is held once per device, in the dtype last asked for, as large as the largest
    layer needs; converting between dtypes is exact.

    Args:
        family: `uniform`, `normal` or `ternary`.
        seed: Any int of at most 64 bits.
        sparsity: s ≥ 2 of the ternary family, entries are nonzero with probability 2/s; ignored by the others.
        separate: An A for each basis (eq. 3) in place of one for all (eq. 4).
    """

    def __init__(self, family: DenseFamily, seed: int, sparsity: float = 2.0, *, separate: bool = False) -> None:
        self.family, self.seed, self.sparsity, self.separate = family, seed, sparsity, separate
        self._unit = unit_scale(family, sparsity)
        self._shape_a, self._shape_b = (0, 0), (0, 0)
        self._pairs: dict[torch.device, DenseForm] = {}
        self._by_rows: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def __deepcopy__(self, memo: dict) -> "DenseBases":
        return self

    def __reduce__(self) -> tuple:
        return dense_bases, (self.family, self.seed, self.sparsity, self.separate)

    def scale(self, r: int) -> float:  # noqa: ARG002 - one signature for all families
        """The product of the factors that give A and B unit variance."""
        return self._unit**2

    def reserve(self, sizes: Sizes) -> None:
        """Make room for a layer; drawn when first used."""
        columns = sizes.r * sizes.num_bases
        shape_a = (max(columns if self.separate else sizes.r, self._shape_a[0]), max(sizes.small, self._shape_a[1]))
        shape_b = (max(sizes.large, self._shape_b[0]), max(columns, self._shape_b[1]))
        if (shape_a, shape_b) != (self._shape_a, self._shape_b):
            self._shape_a, self._shape_b = shape_a, shape_b
            self._pairs.clear()

    def form(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> DenseForm | SparseForm:
        """A (r × m, or r·n × m) and B (M × r·n), views of the shared pair, without their scale.

        On a CPU, where few entries of B are not zero, also B and Bᵀ by rows.

        Args:
            sizes: Of the layer's bases.
            device: Where the pair is wanted.
            dtype: A floating dtype; the numbers are the same in each.
        """
        columns = sizes.r * sizes.num_bases
        self.reserve(sizes)
        if device not in self._pairs:
            self._pairs[device] = self._draw_pair(device, dtype)
        pair = held_in(self._pairs, device, dtype)
        A, B = pair.A[: columns if self.separate else sizes.r, : sizes.small], pair.B[: sizes.large, :columns]
        return SparseForm(A, B, *self._rows_of(B)) if self._is_sparse(device) else DenseForm(A, B)

    def stored_bytes(self) -> int:
        """Bytes held now, over all devices."""
        held = (*self._pairs.values(), *self._by_rows.values())
        return sum(t.numel() * t.element_size() for tensors in held for t in tensors)

    def _is_sparse(self, device: torch.device) -> bool:
        """Whether B is given by rows too."""
        return device.type == "cpu" and self.family == "ternary" and 2 / self.sparsity <= _SPARSEST_DENSE

    def _rows_of(self, B: Tensor) -> tuple[Tensor, ...]:
        """B and Bᵀ by rows, held once per shape in the dtype last asked for."""
        large, columns = B.shape
        if (large, columns) not in self._by_rows:
            with torch.inference_mode(mode=False), torch.no_grad():
                self._by_rows[large, columns] = (*_by_rows(B), *_by_rows(B.T))
        return held_in(self._by_rows, (large, columns), B.dtype)

    def fingerprint(self) -> str:
        """A hash of the corner of the draw: equal wherever and whenever the same bases are drawn."""
        corners = [
            self._draw(_STREAM_A, (8, 64), torch.device("cpu"), torch.float32),
            self._draw(_STREAM_B, (64, 64), torch.device("cpu"), torch.float32),
        ]
        return digest(self.family, *corners)

    def _draw_pair(self, device: torch.device, dtype: torch.dtype) -> DenseForm:
        # A first use inside inference_mode must not make the pair unusable for training.
        with torch.inference_mode(mode=False), torch.no_grad():
            return DenseForm(
                self._draw(_STREAM_A, self._shape_a, device, dtype),
                self._draw(_STREAM_B, self._shape_b, device, dtype),
            )

    def _draw(self, stream: int, shape: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
        out = torch.empty(shape, device=device, dtype=dtype)
        rows, columns = shape
        slab = max(1, _ENTRIES_PER_DRAW // max(columns, 1))
        for start in range(0, rows, slab):
            stop = min(rows, start + slab)
            out[start:stop] = draw(self.family, self.seed, stream, range(start, stop), columns, self.sparsity, device)
        return out


def _by_rows(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    row, column = matrix.nonzero(as_tuple=True)
    starts = torch.searchsorted(row, torch.arange(matrix.shape[0] + 1))
    return matrix[row, column], column.int(), starts.int()


_shared: WeakValueDictionary[tuple, DenseBases] = WeakValueDictionary()


def dense_bases(family: DenseFamily, seed: int, sparsity: float = 2.0, separate: bool = False) -> DenseBases:
    """The process-wide shared bases of this family, seed and sparsity (see `DenseBases`)."""
    if family != "ternary":
        sparsity = 2.0
    key = (family, seed, float(sparsity), separate)
    bases = _shared.get(key)
    if bases is None:
        bases = _shared[key] = DenseBases(family, seed, sparsity, separate=separate)
    return bases


def cast_tensors(tensors: Tensors, dtype: torch.dtype, device: torch.device | None = None) -> Tensors:
    """`tensors` on a device (None: where they are), the floating ones among them in this dtype, fit for training."""

    def cast(t: Tensor) -> Tensor:
        return t.to(device=device, dtype=dtype if t.is_floating_point() else t.dtype)

    make: Callable[[Iterable[Tensor]], Any] = getattr(tensors, "_make", tuple)  # a form stays one
    if torch.compiler.is_compiling():  # dynamo traces the cast, but not a switch of inference mode
        return make(map(cast, tensors))
    with torch.inference_mode(mode=False), torch.no_grad():
        return make(map(cast, tensors))


def held_in(held: dict[Any, Tensors], key: Any, dtype: torch.dtype) -> Tensors:
    """The tensors held under a key in a dtype; those in another are replaced, but for a compiler's trace of this."""
    tensors = held[key]
    if tensors[0].dtype != dtype:
        tensors = cast_tensors(tensors, dtype)
        if not torch.compiler.is_compiling():
            held[key] = tensors
    return tensors


def digest(name: str, *tensors: Tensor) -> str:
    """16 hexadecimal digits of the SHA-256 of a name and of the bytes of CPU tensors of a type that numpy has."""
    hashed = hashlib.sha256(name.encode())
    for tensor in tensors:
        hashed.update(tensor.contiguous().numpy().astype(tensor.numpy().dtype.newbyteorder("<")).tobytes())
    return hashed.hexdigest()[:16]
