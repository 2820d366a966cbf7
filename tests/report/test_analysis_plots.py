"""The pictures of analyses: whatever runs are called, all of a picture's words are in it and clear of its data."""

import errno
import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from randlora.errors import OutputError
from randlora.report.analysis import write_result
from randlora.report.analysis_plots import FIGURES
from randlora.report.page.drawing import draw
from randlora.report.plots import literal
from randlora.result import Result

NAMES = ["Wide " * 40, r"$\frac{1$ no formula $", "x" * 200]
"""As folders may be called; the second is no formula that matplotlib could read."""


def spectrum():
    rows = [{"layer": f"{n}", "rank_50": 1, "rank_90": 2, "rank_99": 3} for n in range(12)]
    values = {row["layer"]: [1.0, 0.5, 0.1] for row in rows}
    return Result("spectrum", f"ΔW of {NAMES[0]}", [], rows, {"layers": rows, "singular_values": values})


def cka():
    pairs = [f"{a} ~ {b}" for a, b in combinations(NAMES, 2)]
    names = [(f"tower.layers.{n}.{part}", part) for n in range(2) for part in ("attention", "mlp")]
    rows = [{"layer": layer, "block": block, **dict.fromkeys(pairs, 0.5)} for layer, block in names]
    return Result("cka", "CKA on the test data", [], rows, {"layers": rows, "pairs": pairs})


def landscape():
    edges = [{"edge": f"{a} – {b}", "losses": [1.0, 2.0, 1.0]} for a, b in combinations(NAMES, 2)]
    data = {"runs": NAMES, "plane": "paper", "corners": [[0, 0], [0.5, 1], [1, 0]], "edges": edges}
    axis = [0.0, 0.5, 1.0]  # no margin: two corners are at the picture's edge
    data |= {"x": axis, "y": axis, "losses": [[1.0, 2.0, 1.0], [2.0, 3.0, 2.0], [1.0, 2.0, 1.5]]}
    return Result("landscape", f"Loss on the test data between {', '.join(NAMES)}", [], edges, data)


def theory():
    rows = [{"ΔW": name, "numbers": n, "LoRA": 1 / n, "vera": None} for name in ("random", "rank 4") for n in (1, 2)]
    return Result("theory", "Error of each method", [], rows, {"rows": rows, "methods": ["LoRA", "vera"]})


def transfer():
    scores = {"before": 1.0, "after": 2.0, "own before": None, "own after": 3.0}
    rows = [{"run": name, **scores} for name in NAMES]
    data = {"rows": rows, "goal": "accuracy", "unit": "%", "data": NAMES[2]}
    return Result("transfer", f"accuracy on {NAMES[2]}, before and after", [], rows, data)


MADE = [spectrum, cka, landscape, theory, transfer]


def test_every_analysis_is_here():
    assert {make.__name__ for make in MADE} == FIGURES.keys()


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_the_words_of_a_picture_are_in_it_and_apart(make):
    figure = literal(FIGURES[make.__name__](make()))
    figure.draw_without_rendering()  # lays it out
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert 0 <= drawn.x0 <= drawn.x1 <= width
    assert 0 <= drawn.y0 <= drawn.y1 <= height
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.get_tightbbox()) for axes in figure.axes)
    for axes in figure.axes:
        assert axes.get_legend() is None
        for label in axes.texts:  # beside a point of the picture, and not over its axes
            assert axes.bbox.x0 <= label.get_window_extent().x0
            assert label.get_window_extent().x1 <= axes.bbox.x1
        assert axes.title.get_window_extent().width <= axes.bbox.width


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_a_name_that_looks_like_a_formula_is_drawn_as_it_is(make):
    drawing = draw("name", "title", "caption", "words", lambda: FIGURES[make.__name__](make()))
    assert drawing.png[:4] == b"\x89PNG"
    if make is not spectrum and make is not theory:
        assert r"$\frac{1$" in drawing.svg
    plain = literal(FIGURES[make.__name__](make()))
    for kind in ("png", "svg"):
        plain.savefig(io.BytesIO(), format=kind)


def contrast(first, second):
    """As WCAG 2 counts it; 3 is the least for lines of a picture."""

    def luminance(colour):
        parts = np.array(to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_every_layers_line_is_seen_on_a_light_page_and_on_a_dark_one():
    values = FIGURES["spectrum"](spectrum()).axes[0]
    colours = [line.get_color() for line in values.lines]
    assert len({tuple(colour) for colour in colours}) == 12
    assert min(contrast(colour, back) for colour in colours for back in ("#ffffff", "#14171b")) >= 3


def test_layers_are_counted_in_whole_numbers():
    for make in (cka, spectrum):
        for axes in FIGURES[make.__name__](make()).axes:
            assert all(tick == round(tick) for tick in axes.get_xticks())


def test_a_full_disk_leaves_no_part_of_a_picture(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match="No space left on device"):
            write_result(theory(), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert [path.suffix for path in write_result(theory(), tmp_path / "out")] == [".png", ".svg", ".md", ".json"]
