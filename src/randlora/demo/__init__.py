"""The embedded demonstration: a CLIP pre-trained on rendered glyphs, adapted to real handwritten digits."""

from randlora.demo.run import run_demo

__all__ = ["run_demo"]
