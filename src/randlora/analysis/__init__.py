"""What a training did to a model: the spectrum of ΔW, CKA between models, the loss between runs.

An analysis takes finished runs and gives a `Result`: rows, lines that say what came out, and all numbers as JSON. It
draws nothing; `randlora.report.analysis` writes results as tables and pictures.
"""

from randlora.result import Result

__all__ = ["Result"]
