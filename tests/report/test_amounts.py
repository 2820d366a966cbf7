"""Scores by the amount of data: what is put into one curve, and where prompts and weights are said to cross."""

import math

import pytest

from made_runs import made_run
from randlora.report.page.amounts import series_of
from randlora.report.page.amounts_section import amounts_figure, amounts_section
from randlora.report.page.crossings import crossings
from randlora.report.page.finding import find
from randlora.report.page.grouping import group
from randlora.report.page.summary import summarize
from randlora.training import ImageTextData, MethodConfig, OptimizationConfig, TextData

RANDLORA = MethodConfig(name="randlora", r=8, alpha=8.0, bases="structured", seed=0, strategy="auto")
MAPLE = MethodConfig(name="maple", options={"depth": 2})
COOP = MethodConfig(name="coop", options={"length": 4})


def made(folder, method, data, scores, *, new=None, epochs=2.0):
    """A run for each seed."""
    for seed, score in enumerate(scores):
        metrics = {"validation_accuracy": 50.0, "test_accuracy": score}
        if new is not None:
            metrics |= {"test_accuracy_new": new + seed, "test_harmonic_mean": new}
        optimization = OptimizationConfig(learning_rate=1e-3, epochs=epochs)
        place = folder / f"{method.name}-{data.shots}-{data.fraction}-{data.classes}-{epochs:g}-{seed}"
        config = {"task": "image-text", "data": data, "optimization": optimization}
        made_run(place, method, seed=seed, metrics=metrics, config=config, history=[])


def panels(folder):
    return [(series.title, panel) for series in series_of(group(find([folder]))) for panel in series.panels]


def test_where_the_curves_cross_is_said_beyond_the_spreads_and_from_the_configs(tmp_path):
    table = {
        1: {MAPLE.name: (70, 72), COOP.name: (60, 62), RANDLORA.name: (60, 62), "full": (58, 68)},
        4: {MAPLE.name: (75, 77), COOP.name: (60, 62), RANDLORA.name: (70, 72), "full": (60, 62)},
        16: {MAPLE.name: (78, 80), COOP.name: (60, 62), RANDLORA.name: (90, 92), "full": (80, 82)},
    }
    for shots, scores in table.items():
        data = ImageTextData(train="digits/train.parquet", validation=0.25, test="t.parquet", shots=shots)
        for method in (MAPLE, COOP, RANDLORA, MethodConfig(name="full")):
            made(tmp_path, method, data, scores[method.name], epochs=100 / shots)
    ((title, panel),) = panels(tmp_path)
    assert (title, panel.amounts, panel.split) == ("image-text, digits", [1, 4, 16], "test")
    randlora = next(curve for curve in panel.curves if curve.label == "randlora r=8")
    assert [(point.mean, point.count) for point in randlora.points.values()] == [(61.0, 2), (71.0, 2), (91.0, 2)]
    assert crossings(panel) == [
        "maple is ahead of randlora r=8 up to 4 shots, behind from 16 shots on.",
        "maple is within the spread of full at 1 shot, ahead at 4 shots, within the spread from 16 shots on.",
        "coop is within the spread of randlora r=8 at 1 shot, behind from 4 shots on.",
        "coop is within the spread of full up to 4 shots, behind from 16 shots on.",
    ]
    axes = amounts_figure(panel).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "16"]
    drawn = [line for bars in axes.containers for line in bars.lines[:1]]
    assert len(drawn) == 4
    for line, curve in zip(drawn, panel.curves, strict=True):
        assert list(line.get_ydata()) == [point.mean for point in curve.points.values()]
        assert [round(math.log2(x)) for x in line.get_xdata()] == [0, 2, 4]


def test_runs_on_base_classes_have_three_panels_and_all_data_are_the_last_place(tmp_path):
    for shots, score in ((4, 70), (None, 80)):
        data = ImageTextData(train="x/digits", test="t", shots=shots, classes="base")
        made(tmp_path, MAPLE, data, (score, score + 2), new=score - 30)
        made(tmp_path, RANDLORA, data, (score + 10, score + 12), new=score - 40)
    found = panels(tmp_path)
    names = ["accuracy on base classes", "accuracy on new classes", "harmonic mean of both"]
    assert [(panel.name, panel.amounts) for _, panel in found] == [(name, [4, None]) for name in names]
    titles = [setting.title for setting in group(find([tmp_path]))]
    assert titles == ["image-text, digits shots=4", "image-text, digits shots=all"]
    (command,) = [command for _, command in summarize(group(find([tmp_path])), [], 0).steps if "spectrum" in command]
    assert "randlora-" in command.rpartition("/")[2]  # prompts have no spectrum, and stand first
    base, new, _ = (crossings(panel) for _, panel in found)
    assert (base, new) == (
        ["maple is behind randlora r=8 at every amount."],
        ["maple is ahead of randlora r=8 at every amount."],
    )
    shown = amounts_section(series_of(group(find([tmp_path])))[0], "amounts-1")
    drawing, told, table = shown.panels[0]
    assert told == base
    assert "behind randlora" in str(drawing.inline)
    assert [cell.text for cell in table.rows[0]] == ["randlora r=8", "81.0 ± 1.4", "91.0 ± 1.4"]
    assert [title for title, _ in table.headings] == ["method", "4", "all"]


def test_shares_of_the_data_are_a_panel_too_and_one_seed_has_no_spread(tmp_path):
    for fraction, score in ((0.1, 60.0), (None, 80.0)):
        data = ImageTextData(train="x/digits", test="t", fraction=fraction)
        made(tmp_path, MAPLE, data, (score,))
        made(tmp_path, RANDLORA, data, (score + 10,))
    ((_, panel),) = panels(tmp_path)
    assert panel.amounts == [0.1, None]
    (line,) = crossings(panel)
    assert line.startswith("With one seed")
    assert [label.get_text() for label in amounts_figure(panel).axes[0].get_xticklabels()] == ["10 %", "100 %"]


@pytest.mark.parametrize("change", [{"test": "other.csv"}, {"max_length": 9}, {"shots": 4}])
def test_what_differs_in_more_than_the_amount_is_no_curve(change, tmp_path):
    made_run(tmp_path / "a", test=70.0, config={"data": TextData(train="x/y", test="t.csv", shots=4)})
    other = {"train": "x/y", "test": "t.csv", "shots": 8} | change
    made_run(tmp_path / "b", test=80.0, config={"data": TextData(**other)}, seed=1)
    assert panels(tmp_path) == []


def test_of_arms_that_differ_in_length_the_one_that_is_best_on_validation_is_on_the_curve(tmp_path):
    data = [TextData(train="x/y", test="t.csv", validation=0.1, shots=shots) for shots in (4, 8)]
    for number, (own, epochs, validation) in enumerate([(data[0], 5, 70), (data[0], 9, 80), (data[1], 5, 90)]):
        config = {"data": own, "optimization": OptimizationConfig(learning_rate=1e-3, epochs=epochs)}
        made_run(tmp_path / f"{number}", test=60.0 + number, validation=validation, config=config)
    ((_, panel),) = panels(tmp_path)
    (curve,) = panel.curves
    assert {amount: point.mean for amount, point in curve.points.items()} == {4: 61, 8: 62}
