"""`randlora analyze spectrum`: what a run added to each layer, and which LoRA rank would have been enough."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from randlora.analysis.bars import bar
from randlora.analysis.deltas import Deltas, LayerDelta, deltas_of
from randlora.analysis.spectrum import EXACT_SIDE, Spectrum, alignment, spectrum_of
from randlora.errors import ConfigError
from randlora.result import Result

SHARES = (0.5, 0.9, 0.99)
"""Shares of the energy whose ranks are told."""


def analyze_spectrum(
    source: str | Path,
    model: str | None = None,
    *,
    directions: int = 16,
    exact_side: int = EXACT_SIDE,
    trust_remote_code: bool = False,
) -> Result:
    """The spectrum of ΔW by layer.

    Args:
        source: A finished run's folder, or an adapter folder; of a full fine-tuning ΔW is the difference of weights.
        model: Where the base model is, if not where training had it.
        directions: How many of W₀'s leading singular directions ΔW is held against.
        exact_side: Largest smaller side of a layer whose spectrum is computed whole.
        trust_remote_code: Whether Python code that comes with the model may run.

    Raises:
        CheckpointError: There is no adapter, it is damaged, or it belongs to another model.
        ConfigError: A number is out of range, or the base model cannot be loaded.
    """
    for name, value in (("--directions", directions), ("--exact-side", exact_side)):
        if value < 1:
            raise ConfigError(name, expected="1 or more", got=str(value))
    layers = deltas_of(source, model, trust_remote_code=trust_remote_code)
    rows, spectra = _look_at(layers, directions, exact_side)
    enough = {share: rank_of_all(spectra, share) for share in SHARES}
    values = {row["layer"]: _rounded(spectrum) for row, spectrum in zip(rows, spectra, strict=True)}
    data = {"layers": rows, "singular_values": values, "rank_of_all": {str(k): v for k, v in enough.items()}}
    return Result("spectrum", f"ΔW of {source}", _in_words(rows, enough), rows, data)


def rank_of_all(spectra: Sequence[Spectrum], share: float) -> int:
    """The rank that on every layer holds a share of the energy of all layers together."""
    wanted = share * sum(spectrum.total for spectrum in spectra) * (1 - 1e-12)
    if not wanted:
        return 0
    low, high = 0, max(spectrum.side for spectrum in spectra)
    while low < high:
        middle = (low + high) // 2
        if sum(spectrum.energy(middle) for spectrum in spectra) >= wanted:
            high = middle
        else:
            low = middle + 1
    return high


def _look_at(layers: Deltas, directions: int, exact_side: int) -> tuple[list[dict[str, Any]], list[Spectrum]]:
    rows, spectra = [], []
    with bar("spectrum", "layer", len(layers.names)) as progress:
        for _, matrices in layers:
            for matrix in matrices:
                spectra.append(spectrum_of(matrix.delta, exact_side))
                rows.append(_row(matrix, spectra[-1], directions))
            progress.update()
    return rows, spectra


def _row(layer: LayerDelta, spectrum: Spectrum, directions: int) -> dict[str, Any]:
    shares = alignment(layer.delta, layer.weight, directions)
    norm = float(layer.weight.double().norm())
    out, inner = layer.delta.shape
    row: dict[str, Any] = {
        "layer": layer.name,
        "shape": [out, inner],
        "norm_ratio": spectrum.total**0.5 / norm if norm else None,
        "stable_rank": spectrum.stable_rank,
        "effective_rank": spectrum.effective_rank,
    }
    for share in SHARES:
        low, high = spectrum.rank_for(share)
        row |= {f"rank_{100 * share:g}": high, f"rank_{100 * share:g}_at_least": low}
    return row | {
        "left": shares.left,
        "right": shares.right,
        "both": shares.both,
        "directions": shares.directions,
        "left_by_chance": shares.directions / out,
        "right_by_chance": shares.directions / inner,
        "exact": spectrum.exact,
        "error": spectrum.error,
        "missed_energy": spectrum.missed / spectrum.total if spectrum.total else 0.0,
    }


def _rounded(spectrum: Spectrum) -> list[float]:
    return [float(f"{value:.6g}") for value in spectrum.values.tolist()]


def _in_words(rows: Sequence[dict[str, Any]], enough: dict[float, int]) -> list[str]:
    if not any(row["stable_rank"] for row in rows):
        return ["ΔW is zero in every layer: training changed nothing"]
    neediest = max(rows, key=lambda row: (row["rank_90"], row["rank_99"]))
    lines = [
        f"a LoRA of rank {enough[0.9]} on every layer would have held 90 % of the energy of ΔW, one of rank "
        f"{enough[0.99]} 99 %; the layer that needs most, {neediest['layer']}, takes {neediest['rank_90']} "
        f"and {neediest['rank_99']}"
    ]
    sketched = [row for row in rows if not row["exact"]]
    if sketched:
        worst = max(row["error"] for row in sketched)
        lines.append(
            f"{len(sketched)} of {len(rows)} spectra are the leading part by a randomized decomposition: singular "
            f"values right to {worst:.1e} of the largest, ranks are upper bounds"
        )
    return lines
