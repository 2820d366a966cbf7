"""The scores of a task against the amount of its data, on the page: a figure, what crosses, and the numbers."""

from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from randlora.report.analysis_plots import plain
from randlora.report.page.amounts import SHOTS, Panel, Series
from randlora.report.page.crossings import crossings
from randlora.report.page.drawing import Drawing, draw
from randlora.report.page.figures import empty, legend, shown, style_of
from randlora.report.page.tables import Cell, Table, goal_words
from randlora.report.table import MISSING

_APART = 0.012
"""Between the bars of neighbouring methods, as a share of the axis."""


@dataclass(frozen=True)
class AmountsSection:
    """A task on the page.

    Attributes:
        title: Its heading.
        panels: Its figures, each with what crosses in it and its numbers.
    """

    title: str
    panels: list[tuple[Drawing, list[str], Table]]


def amounts_section(series: Series, name: str) -> AmountsSection:
    """Draw a task's scores against the amount of its data.

    Args:
        series: The task.
        name: With which the names of its figures begin.
    """
    panels = []
    for number, panel in enumerate(series.panels, start=1):
        title = f"{panel.split.capitalize()} {panel.name} by {_axis(panel)}"
        told = crossings(panel)
        words = " ".join(["A line for each method, with its standard deviation over seeds.", *told])
        make = partial(amounts_figure, panel)
        drawing = draw(f"{name}-{number}", f"{title}: {series.title}", title, words, make)
        panels.append((drawing, told, _table(panel, f"{name}-{number}-numbers", f"{series.title}: {title}")))
    return AmountsSection(series.title, panels)


def amounts_figure(panel: Panel) -> Figure:
    """A line for each method over a logarithmic axis; all of the data is its last place."""
    figure, axes = empty()
    amounts = panel.amounts
    numbers = [amount for amount in amounts if amount is not None]
    last = 1.0 if panel.kind != SHOTS else numbers[-1] * max(2.0, numbers[-1] / numbers[-2] if numbers[1:] else 2.0)
    places = {amount: last if amount is None else amount for amount in amounts}
    width = max(places.values()) / min(places.values())
    for number, curve in enumerate(panel.curves):
        # Side by side, where bars would hide each other.
        aside = width ** (_APART * (number - (len(panel.curves) - 1) / 2))
        xs = [places[amount] * aside for amount in curve.points]
        means = [point.mean for point in curve.points.values()]
        bars = [point.deviation or 0.0 for point in curve.points.values()]
        axes.errorbar(xs, means, yerr=bars, label=shown(curve.arm), capsize=2, markersize=4, **style_of(curve.arm))
    axes.set_xscale("log")
    axes.set_xticks(list(places.values()), [_tick(amount, panel) for amount in amounts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    plain(axes, _axis(panel), f"{panel.split} {panel.name}{f' ({panel.unit})' if panel.unit else ''}")
    legend(figure, axes)
    return figure


def _axis(panel: Panel) -> str:
    return "examples of each class" if panel.kind == SHOTS else "share of the training data"


def _tick(amount: float | None, panel: Panel) -> str:
    if amount is None:
        return "all" if panel.kind == SHOTS else "100 %"
    return f"{amount:g}" if panel.kind == SHOTS else f"{100 * amount:g} %"


def _table(panel: Panel, name: str, title: str) -> Table:
    amounts = panel.amounts
    headings = [("method", False), *((_tick(amount, panel), True) for amount in amounts)]
    rows = []
    for curve in panel.curves:
        points = [curve.points.get(amount) for amount in amounts]
        cells = [Cell(MISSING) if p is None else Cell(goal_words(p, panel.unit), p.mean) for p in points]
        rows.append([Cell(curve.label), *cells])
    return Table(name, f"{title}{f' ({panel.unit})' if panel.unit else ''}", headings, rows)
