"""Seed -> frozen random bases.

Every family answers the same three questions: `form(sizes, device, dtype)` gives what describes the bases of a layer,
with the arithmetic that belongs to it (`randlora.update.Form`), `scale(r)` the factor that gives A·B unit variance, and
`fingerprint()` a hash of the draw. `SpectralBases` are of one weight and have no seed: they are not shared, and not the
same bits on every machine.
"""

from randlora.bases.dense import DenseBases, dense_bases
from randlora.bases.peft_draw import PeftBases, StoredBases
from randlora.bases.spectral import SpectralBases
from randlora.bases.structured import StructuredBases

SCHEME_VERSION = 2
"""Version of the draws. It changes where a seed comes to mean other bases; an adapter records it.

Version 1 cut the last rows off structured bases on layers with M < r·n too, where ΔW then lacked some rank; all its
other bases are the same.
"""

Bases = DenseBases | StructuredBases | PeftBases | StoredBases

__all__ = [
    "SCHEME_VERSION",
    "Bases",
    "DenseBases",
    "PeftBases",
    "SpectralBases",
    "StoredBases",
    "StructuredBases",
    "dense_bases",
]
