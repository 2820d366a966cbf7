"""Long random vectors from a seed, for methods that train their linear combinations: kept while small, else redrawn."""

from collections.abc import Iterator
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from randlora.bases.dense import draw

_KEPT_ENTRIES = 1 << 29  # 1 GiB of bfloat16; more than that is drawn again at every use
_ENTRIES_PER_SLAB = 1 << 22


class RandomVectors:
    """Vectors P_0, P_1, … with independent entries, uniform in (-1, 1), exact in bfloat16.

    Entry j of P_i is a pure function of (seed, stream, i, j): a shorter vector is the beginning of a longer one, and
    layers of any size share one draw. Obtain it with `random_vectors`, which returns the same object for the same
    arguments.

    Args:
        seed: Any int of at most 64 bits.
        stream: Which of the independent families of this seed.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self.seed, self.stream = seed, stream
        self._count, self._size = 0, 0
        self._drawn: dict[torch.device, Tensor] = {}

    def __deepcopy__(self, memo: dict) -> "RandomVectors":
        return self

    def __reduce__(self) -> tuple:
        return random_vectors, (self.seed, self.stream)

    def reserve(self, count: int, size: int) -> None:
        """Make room for `count` vectors of `size` entries; drawn by `prepare`, or when first used."""
        if count > self._count or size > self._size:
            self._count, self._size = max(count, self._count), max(size, self._size)
            self._drawn.clear()

    def prepare(self, device: torch.device) -> None:
        """Draw on a device what was reserved, unless it is there already or more than is kept."""
        if device in self._drawn or self._count * self._size > _KEPT_ENTRIES:
            return
        # A first use inside inference_mode must not make the vectors unusable for training.
        with torch.inference_mode(mode=False), torch.no_grad():
            entries = torch.empty(self._count, self._size, dtype=torch.bfloat16, device=device)
            for rows in _slices(self._count, self._size):
                entries[rows] = self._draw(rows, self._size, device).bfloat16()
        self._drawn[device] = entries

    def slabs(self, count: int, size: int, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
        """The first `size` entries of the first `count` vectors, some vectors at a time.

        Args:
            count: Number of vectors.
            size: Entries of each.
            device: Where they are wanted.

        Yields:
            Which vectors, and a (vectors, size) tensor of them in bfloat16 or float32.
        """
        self.reserve(count, size)
        self.prepare(device)
        entries = self._drawn.get(device)
        for rows in _slices(count, size):
            yield rows, self._draw(rows, size, device) if entries is None else entries[rows, :size]

    def _draw(self, rows: slice, size: int, device: torch.device) -> Tensor:
        return draw("uniform", self.seed, self.stream, range(rows.start, rows.stop), size, 2.0, device) / 2


def _slices(count: int, size: int) -> Iterator[slice]:
    step = max(1, _ENTRIES_PER_SLAB // max(size, 1))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


_shared: WeakValueDictionary[tuple[int, int], RandomVectors] = WeakValueDictionary()


def random_vectors(seed: int, stream: int) -> RandomVectors:
    """The process-wide shared vectors of this seed and stream (see `RandomVectors`)."""
    vectors = _shared.get((seed, stream))
    if vectors is None:
        vectors = _shared[seed, stream] = RandomVectors(seed, stream)
    return vectors
