"""PEFT's own draw of RandLora's bases, reproduced so that its checkpoints can be read and written exactly.

PEFT draws A (r, 1, m) and B (M, n, r) for the elementwise largest adapted layer with torch's CPU generator, in
bfloat16 where the machine has it and float16 elsewhere, and divides each by its standard deviation. It pairs them by
flattening A·λ over (r, n) and B over (n, r): column p of the flattened B meets row p // n of A. Reading the flattened
B as M × (r·n) with column k·n + j for basis j gives that pairing in randlora's layout.
"""

from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from randlora.bases.dense import cast_tensors, digest
from randlora.update import DenseForm, Sizes

PeftSparsity = Literal["dense", "sparse", "very_sparse"]


class PeftBases:
    """The shared pair of a PEFT RandLora adapter, drawn from its seed.

    Args:
        seed: PEFT's `projection_prng_key`.
        r: Basis rank.
        rows: M, the larger of (largest out, largest in) over the adapted layers.
        columns: m, the smaller of the two.
        sparsity: `dense`, `sparse` (entries ±1 with probability 1/6 each) or `very_sparse` (1/(2·√m) each).
        dtype: The dtype PEFT drew in: `bfloat16` or `float16`; sparse bases are drawn in float32.
    """

    def __init__(
        self,
        seed: int,
        r: int,
        rows: int,
        columns: int,
        sparsity: PeftSparsity = "dense",
        dtype: str = "bfloat16",
    ) -> None:
        with torch.inference_mode(mode=False), torch.device("cpu"):
            self.pair = draw_pair(seed, r, rows, columns, sparsity, dtype)
        self._copies: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def scale(self, r: int) -> float:  # noqa: ARG002 - one signature for all families
        """PEFT's bases have unit standard deviation already."""
        return 1.0

    def reserve(self, sizes: Sizes) -> None:
        """Nothing to reserve: the pair is drawn whole."""

    def form(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> DenseForm:
        """A (r × m) and B (M × r·n) as PEFT slices and pairs them; PEFT has ⌈m/r⌉ bases."""
        pair = self._copies.get(device)
        if pair is None or pair[0].dtype != dtype:
            # From the pair as drawn: its entries fill the dtype of the draw, so a cast of a cast could lose bits.
            pair = cast_tensors(self.pair, dtype, device)
            if not torch.compiler.is_compiling():
                self._copies[device] = pair
        return _slice(*pair, sizes)

    def stored_bytes(self) -> int:
        """Bytes held now, over all devices."""
        held = [self.pair, *self._copies.values()]
        return sum(t.numel() * t.element_size() for pair in held for t in pair)

    def fingerprint(self) -> str:
        """A hash of the whole pair."""
        return digest("peft", *(t.float().cpu() for t in self.pair))


class StoredBases(nn.Module):
    """A pair that no draw here reproduces: two persistent buffers, saved with the adapter and loaded from its file.

    Args:
        r: Basis rank.
        rows: M of the pair.
        columns: m of the pair.
        dtype: The dtype it is stored in.
    """

    A: Tensor
    B: Tensor

    def __init__(self, r: int, rows: int, columns: int, dtype: str) -> None:
        super().__init__()
        stored = getattr(torch, dtype)
        self.register_buffer("A", torch.zeros(r, 1, columns, dtype=stored))
        self.register_buffer("B", torch.zeros(rows, -(-columns // r), r, dtype=stored))

    def scale(self, r: int) -> float:  # noqa: ARG002 - one signature for all families
        """PEFT's bases have unit standard deviation already."""
        return 1.0

    def reserve(self, sizes: Sizes) -> None:
        """Nothing to reserve."""

    def form(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> DenseForm:
        """A (r × m) and B (M × r·n) as PEFT slices and pairs them; PEFT has ⌈m/r⌉ bases."""
        return _slice(self.A.to(device, dtype), self.B.to(device, dtype), sizes)

    def stored_bytes(self) -> int:
        """Bytes held now."""
        return sum(t.numel() * t.element_size() for t in (self.A, self.B))

    def fingerprint(self) -> str:
        """Nothing is drawn: the file itself holds the pair."""
        return "stored"


def _slice(A: Tensor, B: Tensor, sizes: Sizes) -> DenseForm:
    return DenseForm(A[:, 0, : sizes.small], B[: sizes.large, : sizes.num_bases].flatten(1))


def draw_pair(seed: int, r: int, rows: int, columns: int, sparsity: PeftSparsity, dtype: str) -> tuple[Tensor, Tensor]:
    """A (r, 1, columns) and B (rows, ⌈columns/r⌉, r) with the numbers that PEFT draws from this seed."""
    generator = torch.Generator().manual_seed(seed)
    bases_count = -(-columns // r)
    if sparsity == "dense":
        draw_dtype = getattr(torch, dtype)
        shape_a = torch.empty(r, 1, columns, dtype=draw_dtype)
        a = torch.nn.init.kaiming_uniform_(shape_a, a=sqrt(5), generator=generator)
        slices = [torch.empty(rows, 1, r, dtype=draw_dtype) for _ in range(bases_count)]
        b = torch.cat([torch.nn.init.kaiming_uniform_(s, a=sqrt(5), generator=generator) for s in slices], dim=1)
        return a / a.std(), b / b.std()
    half = 1 / (2 * (3 if sparsity == "sparse" else sqrt(columns)))
    a, b = (
        _ternary(torch.rand(shape, generator=generator, dtype=torch.float32), half)
        for shape in ((r, 1, columns), (rows, bases_count, r))
    )
    return a / a.std(), b / b.std()


def _ternary(uniform: Tensor, probability: float) -> Tensor:
    return (uniform > 1 - probability).float() - (uniform < probability).float()
