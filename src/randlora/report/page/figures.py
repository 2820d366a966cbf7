"""The figures of a report: curves, learning rates, what a score costs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from randlora.report.analysis_plots import plain
from randlora.report.page.finding import LARGEST, FoundRun
from randlora.report.page.grouping import IN_LEGEND, Arm, Setting
from randlora.report.page.paper import PaperPoint
from randlora.report.plots import COLOURS, MARKERS

POINTS = 150
"""Points of a curve; of a longer one as many are drawn, evenly taken."""
_STYLES = ("-", "--", ":", "-.")
_GREY = "#888888"
_PAPER = "#999999"
_ACROSS = (*_STYLES, (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)))
"""Lines of the paper's methods, of which a table has five."""

Cost = Callable[[FoundRun], float | None]


def style_of(arm: Arm) -> dict[str, Any]:
    """Colour, line and marker of an arm; past the palette the line changes with the colour."""
    if arm.place >= IN_LEGEND:
        return {"color": _GREY, "linestyle": "-", "marker": "."}
    turn, colour = divmod(arm.place, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": _STYLES[turn], "marker": MARKERS[(colour + turn) % len(MARKERS)]}


def empty() -> tuple[Figure, Axes]:
    """A figure of the size that all of a report have."""
    figure = Figure(figsize=(4.8, 3.6), layout="constrained")
    return figure, figure.subplots()


def legend(figure: Figure, axes: Axes) -> None:
    """What the colours are, below the picture; two in a line where they are short."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 2 if max(map(len, labels)) <= 26 else 1
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def shown(arm: Arm) -> str | None:
    """An arm's label for the legend, whatever it begins with; None for one that is grey."""
    if arm.place >= IN_LEGEND:
        return None
    return f"\N{WORD JOINER}{arm.label}" if arm.label.startswith("_") else arm.label


def short_number(value: float, _: Any = None) -> str:
    """A number for an axis.

    >>> short_number(250_000), short_number(0.003)
    ('250k', '0.003')
    """
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def logarithmic(scale: Callable[[str], Any], axis: Any) -> None:
    """A logarithmic axis with its decades named, and in short ones what is between."""
    scale("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(short_number))
    axis.set_minor_formatter(NullFormatter())


def goal_name(setting: Setting, split: str = "") -> str:
    """The goal with its unit, for an axis."""
    return f"{split} {setting.goal}{f' ({setting.unit})' if setting.unit else ''}".strip()


def _last_step(run: FoundRun) -> float:
    return max((entry.get("step", 0) for entry in run.record.history), default=0)


def loss_points(run: FoundRun) -> list[tuple[float, float]]:
    """(step, training loss) as logged."""
    return _known((entry.get("step"), entry.get("loss")) for entry in run.record.history)


def goal_points(run: FoundRun) -> list[tuple[float, float]]:
    """(step, goal) on the split that was scored before and after training, with what was scored on the way."""
    record = run.record
    last = _last_step(run)
    between = [
        (entry.get("step"), entry.get(f"{record.split}_{record.goal}"))
        for entry in record.history
        if entry.get("step", 0) < last
    ]
    return _known([(0, record.before), *between, (last or 1, record.after)])


def _known(points: Any) -> list[tuple[float, float]]:
    known = [(x, y) for x, y in points if x is not None and y is not None and max(abs(x), abs(y)) < LARGEST]
    if len(known) <= POINTS:
        return known
    return [known[round(place)] for place in np.linspace(0, len(known) - 1, POINTS)]


def curves(setting: Setting, points: Callable[[FoundRun], list[tuple[float, float]]], *, by_time: bool) -> Figure:
    """One line for each run at its arm's best learning rate."""
    figure, axes = empty()
    of_loss = points is loss_points
    for arm in setting.arms:
        style = {**style_of(arm), "marker": "" if of_loss else "."}
        label = shown(arm)
        for run in arm.chosen:
            found = points(run)
            if found:
                xs, ys = zip(*found, strict=True)
                if by_time:
                    seconds = run.record.train_seconds / (_last_step(run) or math.nan)
                    xs = tuple(seconds * x for x in xs)
                axes.plot(xs, ys, label=label, linewidth=1.3, **style)
                label = None
    split = setting.arms[0].split
    if not by_time:
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    plain(axes, "seconds of training" if by_time else "step", "training loss" if of_loss else goal_name(setting, split))
    losses = [y for arm in setting.arms for run in arm.chosen for _, y in points(run)]
    if of_loss and losses and min(losses) > 0 and max(losses) > 30 * min(losses):
        logarithmic(axes.set_yscale, axes.yaxis)
    legend(figure, axes)
    return figure


def rate_curves(setting: Setting) -> Figure:
    """The goal by learning rate, the best one ringed; crosses at the edge are rates at which training diverged."""
    figure, axes = empty()
    for arm in setting.arms:
        rates = arm.rates
        if len(rates) + len(arm.diverged) < 2:
            continue
        style = style_of(arm)
        means = [value.mean for value in rates.values()]
        bars = [value.deviation or 0.0 for value in rates.values()]
        axes.errorbar(list(rates), means, yerr=bars, label=shown(arm), markersize=4, capsize=2, **style)
        if rates:
            axes.plot(
                [arm.rate], [rates[arm.rate].mean], "o", markersize=10, markerfacecolor="none", color=style["color"]
            )
        if arm.diverged:
            bottom = axes.get_xaxis_transform()
            axes.plot(arm.diverged, [0.02] * len(arm.diverged), "x", transform=bottom, color=style["color"])
    logarithmic(axes.set_xscale, axes.xaxis)
    plain(axes, "learning rate", goal_name(setting, setting.arms[0].split))
    legend(figure, axes)
    return figure


def score_by(setting: Setting, cost: Cost, xlabel: str, paper: Sequence[tuple[PaperPoint, float | None]]) -> Figure:
    """The score of each arm by what it cost, with the deviation over seeds; grey is the paper.

    Args:
        setting: The setting.
        cost: Of a run.
        xlabel: What the cost is.
        paper: The paper's figures for this task, each with its cost; without one it is a line across.
    """
    figure, axes = empty()
    costs = []
    for arm in setting.arms:
        score, x = setting.score(arm), arm.mean(cost)
        if score is not None and x is not None:
            costs.append(x)
            style = {**style_of(arm), "linestyle": "none"}
            axes.errorbar([x], [score.mean], yerr=[score.deviation or 0.0], label=shown(arm), capsize=2, **style)
    for place, (point, x) in enumerate(paper):
        marker = MARKERS[place % len(MARKERS)]
        label = f"paper: {point.method}"
        if x is None:
            axes.axhline(point.value, color=_PAPER, linewidth=0.8, linestyle=_ACROSS[place % len(_ACROSS)], label=label)
        else:
            costs.append(x)
            axes.plot([x], [point.value], marker, color=_PAPER, markerfacecolor="none", label=label)
    if costs and max(costs) >= 10 * min(costs) > 0:
        logarithmic(axes.set_xscale, axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(short_number))
    plain(axes, xlabel, goal_name(setting, setting.split))
    legend(figure, axes)
    return figure
