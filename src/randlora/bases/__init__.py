"""Seed -> frozen random bases.

Every family answers the same four questions: `tensors(r, small, large, device, dtype)` gives what describes A and B
of a layer, `scale(r)` the factor that gives their product unit variance, `fingerprint()` a hash of the draw, and
`kind` says which arithmetic of `randlora.update` applies (`dense` or `structured`).
"""

from randlora.bases.dense import DenseBases, dense_bases
from randlora.bases.peft_draw import PeftBases, StoredBases
from randlora.bases.structured import StructuredBases

SCHEME_VERSION = 1
"""Version of the draws. It changes if a seed should ever mean other bases; an adapter records it."""

Bases = DenseBases | StructuredBases | PeftBases | StoredBases

__all__ = ["SCHEME_VERSION", "Bases", "DenseBases", "PeftBases", "StoredBases", "StructuredBases", "dense_bases"]
