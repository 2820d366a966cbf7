"""The pictures of analyses, as matplotlib figures."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from randlora.analysis.result import Result
from randlora.report.plots import COLOURS


def plain(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Labels, a light grid, no box."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def spectrum(result: Result) -> Figure:
    """Left, the singular values of every layer, from dark (first) to light; right, the ranks that hold the energy."""
    rows: list[dict[str, Any]] = result.data["layers"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    values, ranks = figure.subplots(1, 2)
    shades = np.linspace(0.0, 0.75, len(rows))
    for row, shade in zip(rows, shades, strict=True):
        found = np.array(result.data["singular_values"][row["layer"]])
        if found.size and found[0] > 0:
            paler = tuple(shade + (1 - shade) * part for part in (0.0, 0.30, 0.55))
            values.plot(np.arange(1, len(found) + 1), found / found[0], color=paler, linewidth=0.9)
    values.set_yscale("log")
    values.set_ylim(1e-6, 1.5)
    plain(values, "index of the singular value", "share of the largest")
    places = np.arange(len(rows))
    for colour, share in zip(COLOURS, (50, 90, 99), strict=False):
        ranks.plot(places, [row[f"rank_{share}"] for row in rows], ".-", color=colour, label=f"{share} % of the energy")
    plain(ranks, "layer, in the model's order", "rank of the nearest LoRA")
    ranks.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(result.title)
    return figure


FIGURES: dict[str, Callable[[Result], Figure]] = {"spectrum": spectrum}
"""Name of an analysis -> its picture."""
