import io

import pytest
from PIL import Image

from randlora.report.plots import comparison


def _row(label, setting, after):
    return {
        "label": label,
        "setting": setting,
        "before": 50.0,
        "after": after,
        "step_seconds_median": 0.05,
        "adapter_bytes": 2**17,
    }


@pytest.fixture
def figure():
    rows = [_row(label, setting, after) for setting, after in (("few", 90.0), ("all", 97.5)) for label in ("A", "B")]
    return comparison(rows, "What was gained")


def test_methods_are_rows_and_settings_are_colours(figure):
    accuracy = figure.axes[0]
    assert [tick.get_text() for tick in accuracy.get_yticklabels()] == ["A", "B"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training data: few", "training data: all"]
    assert [text.get_text() for text in accuracy.texts] == ["90.0", "90.0", "97.5", "97.5"]


def test_points_lie_at_the_records_values(figure):
    accuracy, seconds, size = figure.axes
    assert [list(line.get_xdata()) for line in accuracy.lines] == [[50, 50], [90, 90], [50, 50], [97.5, 97.5]]
    assert all(list(line.get_xdata()) == [50, 50] for line in seconds.lines)
    assert all(list(line.get_xdata()) == [128, 128] for line in size.lines)
    heights = [height for line in seconds.lines for height in line.get_ydata()]
    assert len(set(heights)) == 4  # nothing hides another point


def test_legend_is_clear_of_the_data(figure):
    figure.draw_without_rendering()  # lays it out
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_it_can_be_saved_as_png_and_svg(figure):
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png")
    figure.savefig(svg, format="svg")
    assert Image.open(png).width > 1000
    assert b"</svg>" in svg.getvalue()
