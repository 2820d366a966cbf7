"""Records as pictures, as matplotlib figures: save them with `savefig`; no window is opened."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter

from randlora.messages import printable, short

Rows = Sequence[Mapping[str, Any]]

# Okabe & Ito's palette, distinguishable with every kind of colour vision; and a shape each, for prints in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")


def comparison(rows: Rows, title: str = "") -> Figure:
    """What each method gains and what it costs, method by method from top to bottom.

    Left, the accuracy before (hollow) and after (filled) training, one colour per setting; in the middle and on the
    right, the time per step and the size of the adapter.

    Args:
        rows: Records (`Record.row`) with two more keys, "label" (the method's name) and "setting"; at most six
            settings.
        title: Shown above.
    """
    labels = list(dict.fromkeys(row["label"] for row in rows))
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    figure = Figure(figsize=(11, 1.8 + 0.55 * len(labels)), layout="constrained")
    accuracy, seconds, size = figure.subplots(1, 3, sharey=True, width_ratios=(2.2, 1, 1))
    for index, setting in enumerate(settings):
        chosen = [row for row in rows if row["setting"] == setting]
        # Side by side within a method's line.
        shift = 0.5 * ((index + 0.5) / len(settings) - 0.5)
        heights = [labels.index(row["label"]) + shift for row in chosen]
        style = {"color": COLOURS[index], "marker": MARKERS[index]}
        _dumbbells(accuracy, chosen, heights, f"training data: {setting}", style)
        seconds.plot([1000 * row["step_seconds_median"] for row in chosen], heights, linestyle="none", **style)
        size.plot([row["adapter_bytes"] / 1024 for row in chosen], heights, linestyle="none", **style)
    _describe(accuracy, "test accuracy (%): hollow before, filled after")
    _describe(seconds, "time per step (ms)")
    _describe(size, "adapter (KiB)")
    accuracy.set_yticks(range(len(labels)), labels)
    accuracy.set_ylim(len(labels) - 0.5, -0.5)
    accuracy.set_xlim(right=101)
    seconds.set_xlim(0, 1.1 * seconds.get_xlim()[1])
    size.set_xscale("log")
    # Whole decades: between them a narrow logarithmic axis has no room for labels.
    low, high = size.get_xlim()
    size.set_xlim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    size.xaxis.set_minor_formatter(NullFormatter())
    figure.suptitle(title)
    figure.legend(loc="outside lower center", ncols=len(settings), frameon=False)
    return figure


def _dumbbells(axes: Axes, rows: Rows, heights: Sequence[float], label: str, style: Mapping[str, Any]) -> None:
    """A line from before to after for each row, with the end value beside it."""
    before = [row["before"] for row in rows]
    after = [row["after"] for row in rows]
    axes.hlines(heights, before, after, color=style["color"], linewidth=1.5, alpha=0.5)
    axes.plot(before, heights, linestyle="none", markerfacecolor="white", **style)
    axes.plot(after, heights, linestyle="none", label=label, **style)
    for value, height in zip(after, heights, strict=True):
        axes.annotate(f"{value:.1f}", (value, height), (7, 0), textcoords="offset points", va="center", fontsize=9)


def _describe(axes: Axes, xlabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def titled(figure: Figure, title: str) -> None:
    """Put a title above a figure, in two lines at most: names in it may be long."""
    letters = round(8 * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.wrap(short(title, 2 * letters - 10), letters)))


def tick_name(name: str) -> str:
    """A name as the label of a tick, which `literal` does not reach, short enough to leave the axis its room."""
    return short(name, 30).replace("$", r"\$")


def literal(figure: Figure) -> Figure:
    """The figure with all of its texts as they are written: a dollar in a run's name begins no formula.

    What does not print is written out. Tick labels, which have no text before they are drawn, keep theirs.
    """
    for text in figure.findobj(Text):
        written = text.get_text()
        text.set_text("\n".join(printable(line) for line in written.split("\n")))
        if "$" in written:
            text.set_parse_math(False)
    return figure
