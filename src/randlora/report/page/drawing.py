"""Matplotlib's figures as files, and as SVG that is part of a page: in its colours, with names of its own."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.sax.saxutils import escape

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from randlora.report.plots import literal

_INK, _GRID = "#010203", "#e6e6e6"
"""What texts and lines, and grids, are drawn in and nothing else, so that a page can set its own colours."""

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "randlora",
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.fontsize": 8,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


@dataclass(frozen=True)
class Drawing:
    """A figure, drawn.

    Attributes:
        name: Stem of its files, and its name on the page.
        title: What it shows.
        caption: The same below the figure, where the heading above says what it is about.
        description: The same for who cannot see it.
        png: The file's content.
        svg: The file's content.
        inline: SVG for a page.
    """

    name: str
    title: str
    caption: str
    description: str
    png: bytes
    svg: str
    inline: Markup


@contextmanager
def plainly() -> Iterator[None]:
    """Around whatever makes a figure: its texts stay texts, its colours are such as a page can change."""
    with mpl.rc_context(_STYLE):
        yield


def draw(name: str, title: str, caption: str, description: str, make: Callable[[], Figure]) -> Drawing:
    """Make a figure and write it in every form.

    Args:
        name: Letters, digits and hyphens.
        title: What it shows.
        caption: The same, below the figure.
        description: What is to be seen in it, in words.
        make: Makes the figure.
    """
    with plainly():
        figure = literal(make())
        picture, drawn = io.BytesIO(), io.BytesIO()
        figure.savefig(picture, format="png", dpi=150)
        figure.set_layout_engine("none")  # everything is in its place by now
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    svg = _rounded(drawn.getvalue().decode("utf-8"))
    inline = _inline(svg, name, title, description)
    return Drawing(name, title, caption, description, picture.getvalue(), svg, inline)


def _rounded(svg: str) -> str:
    """Coordinates to a hundredth of a point, which is a third of the bytes."""
    numbers = re.compile(r"-?\d+\.\d{3,}")

    def shorter(match: re.Match[str]) -> str:
        return numbers.sub(lambda number: f"{float(number[0]):.2f}", match[0])

    return re.sub(r'\b(?:d|x|y|width|height|points)="[^"]*"', shorter, svg)


def _inline(svg: str, name: str, title: str, description: str) -> Markup:
    """The drawing without its head, whose names cannot meet those of another."""
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    head, _, rest = body.partition(">")
    box = re.search(r'viewBox="([^"]*)"', head)
    rest = re.sub(r"<title>.*?</title>", "", rest, count=1, flags=re.DOTALL)
    rest = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", rest)
    rest = rest.replace("xlink:href", "href").replace(_INK, "currentColor").replace(_GRID, "var(--line)")
    rest = re.sub(r"font(-family)?: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font\1: \2system-ui, sans-serif", rest)
    words = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    viewed = f'viewBox="{box[1] if box else ""}" aria-labelledby="{name}-title {name}-desc"'
    # What is in the drawing was escaped by matplotlib, what is added here above.
    return Markup(f'<svg role="img" xmlns="http://www.w3.org/2000/svg" {viewed}>{words}{rest}')  # noqa: S704
