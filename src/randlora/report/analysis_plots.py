"""The pictures of analyses, as matplotlib figures."""

import re
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from randlora.messages import short
from randlora.report.plots import COLOURS, tick_name, titled
from randlora.result import Result

LINES = ("o-", "s--", "^:", "D-.")
_DEPTH = LinearSegmentedColormap.from_list("depth", COLOURS[:2])
"""From the first layer to the last; all of it is seen on a light page and on a dark one."""
_NAME, _MARK = 25, 20
"""Letters of a run's name in a legend, and beside a point."""


def plain(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Labels, a light grid, no box."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _below(figure: Figure, axes: Axes) -> None:
    """What the colours of some axes are, below the figure; two in a line where they are short."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= 4 * figure.get_figwidth() else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def _pair(names: str, between: str) -> str:
    """Two runs, for a legend."""
    return between.join(short(name, _NAME) for name in names.split(between))


def spectrum(result: Result) -> Figure:
    """Left, the singular values of every layer, from blue (first) to orange; right, the ranks that hold the energy."""
    rows: list[dict[str, Any]] = result.data["layers"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    values, ranks = figure.subplots(1, 2)
    for row, colour in zip(rows, _DEPTH(np.linspace(0, 1, len(rows))), strict=True):
        found = np.array(result.data["singular_values"][row["layer"]])
        if found.size and found[0] > 0:
            values.plot(np.arange(1, len(found) + 1), found / found[0], color=colour, linewidth=0.9)
    values.set_yscale("log")
    values.set_ylim(1e-6, 1.5)
    plain(values, "index of the singular value", "share of the largest")
    places = np.arange(len(rows))
    for colour, share in zip(COLOURS, (50, 90, 99), strict=False):
        ranks.plot(places, [row[f"rank_{share}"] for row in rows], ".-", color=colour, label=f"{share} % of the energy")
    plain(ranks, "layer, in the model's order", "rank of the nearest LoRA")
    ranks.set_ylim(bottom=0)
    for axes in (values, ranks):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    titled(figure, result.title)
    return figure


def cka(result: Result) -> Figure:
    """CKA by depth, attention beside MLP: one colour for each pair, one kind of line for each tower."""
    rows: list[dict[str, Any]] = result.data["layers"]
    towers = list(dict.fromkeys(_tower(row["layer"]) for row in rows))
    kinds = list(dict.fromkeys(row["block"] for row in rows))
    figure = Figure(figsize=(5.5 * len(kinds), 4.2), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0], kinds, strict=True):
        for number, pair in enumerate(result.data["pairs"]):
            for tower, style in zip(towers, LINES, strict=False):
                chosen = [row for row in rows if row["block"] == kind and _tower(row["layer"]) == tower]
                values = [np.nan if row[pair] is None else row[pair] for row in chosen]
                label = _pair(pair, " ~ ") + ("" if len(towers) == 1 else f", {tower}")
                colour = COLOURS[number % len(COLOURS)]
                axes.plot(range(1, len(values) + 1), values, style, color=colour, label=label)
        axes.set_title(kind)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes, "layer", "CKA" if kind == kinds[0] else "")
    _below(figure, axes)
    titled(figure, result.title)
    return figure


def _tower(layer: str) -> str:
    """What comes before the number of a layer in its name."""
    return re.split(r"\.\d+\.", layer)[0]


def landscape(result: Result) -> Figure:
    """Left, contours of the loss with the three runs; right, the loss along the edges of their triangle."""
    data = result.data
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    plane, edges = figure.subplots(1, 2, width_ratios=(1.25, 1))
    losses, top = clipped(data)
    levels = np.linspace(losses.min(), top, 24) if losses.min() < top else [top - 1, top, top + 1]
    shown = plane.contourf(data["x"], data["y"], losses, levels=levels, cmap="viridis", extend="max")
    plane.contour(data["x"], data["y"], losses, levels=levels[::2], colors="white", linewidths=0.4, alpha=0.6)
    figure.colorbar(shown, ax=plane, label="loss", ticks=MaxNLocator(7))
    for name, (x, y) in zip(data["runs"], data["corners"], strict=True):
        plane.plot(x, y, "o", color="white", markeredgecolor="black")
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
        share = (x - data["x"][0]) / (data["x"][-1] - data["x"][0])
        side = "left" if share < 0.2 else "right" if share > 0.8 else "center"  # a name stays in the picture
        style = {"textcoords": "offset points", "ha": side, "fontsize": 9, "color": "black", "bbox": box}
        plane.annotate(short(name, _MARK), (x, y), (0, 9), **style)
    plane.set_xlabel("x")
    plane.set_ylabel("y")
    if data["plane"] == "orthonormal":
        plane.set_aspect("equal")
    for colour, edge in zip(COLOURS, data["edges"], strict=False):
        values = [np.nan if loss is None else loss for loss in edge["losses"]]
        edges.plot(np.linspace(0, 1, len(values)), values, ".-", color=colour, label=_pair(edge["edge"], " – "))
    plain(edges, "share of the way", "loss")
    _below(figure, edges)
    titled(figure, result.title)
    return figure


def clipped(data: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    """The losses over the grid, those that would hide the triangle cut off; and where.

    Nine tenths of the grid are shown as they are, and the triangle's edges whole.
    """
    losses = np.array([[np.inf if loss is None else loss for loss in line] for line in data["losses"]])
    known = losses[np.isfinite(losses)]
    inside = [loss for edge in data["edges"] for loss in edge["losses"] if loss is not None]
    top = max([*inside, float(np.quantile(known, 0.9)) if known.size else 0.0])
    return np.minimum(losses, top), top


def theory(result: Result) -> Figure:
    """The error of each method by its trained numbers, one picture for each ΔW."""
    rows: list[dict[str, Any]] = result.data["rows"]
    names = list(dict.fromkeys(row["ΔW"] for row in rows))
    figure = Figure(figsize=(4.2 * len(names), 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        chosen = [row for row in rows if row["ΔW"] == name]
        for method, colour, style in zip(result.data["methods"], COLOURS, cycle(LINES), strict=False):
            known = [row for row in chosen if row[method] is not None]
            numbers = [row.get(f"{method} numbers", row["numbers"]) for row in known]
            axes.plot(numbers, [row[method] for row in known], style, color=colour, label=method)
        axes.set_title(f"ΔW {name}")
        axes.set_ylim(0, 1)
        plain(axes, "trained numbers", "error, as a share of ‖ΔW‖" if name == names[0] else "")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    titled(figure, result.title)
    return figure


def transfer(result: Result) -> Figure:
    """Each run's score before (hollow) and after (filled), on the other data and on its own."""
    rows: list[dict[str, Any]] = result.data["rows"]
    figure = Figure(figsize=(11, 1.6 + 0.5 * len(rows)), layout="constrained")
    heights = np.arange(len(rows))
    unit = f" ({result.data['unit']})" if result.data["unit"] else ""
    sides = ((str(result.data["data"]), "before", "after"), ("the run's own data", "own before", "own after"))
    for axes, colour, (title, *keys) in zip(figure.subplots(1, 2, sharey=True), COLOURS, sides, strict=False):
        before, after = ([np.nan if row[key] is None else row[key] for row in rows] for key in keys)
        axes.hlines(heights, before, after, color=colour, alpha=0.5)
        axes.plot(before, heights, "o", color=colour, markerfacecolor="white")
        axes.plot(after, heights, "o", color=colour)
        axes.set_title(short(title, 30))
        plain(axes, f"{result.data['goal']}{unit}", "")
        axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(heights, [tick_name(row["run"]) for row in rows])
    titled(figure, result.title)
    return figure


FIGURES: dict[str, Callable[[Result], Figure]] = {
    "spectrum": spectrum,
    "cka": cka,
    "landscape": landscape,
    "theory": theory,
    "transfer": transfer,
}
"""Name of an analysis -> its picture."""
