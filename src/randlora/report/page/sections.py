"""A setting on the page: its table and its figures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from randlora.report.page import figures
from randlora.report.page.drawing import Drawing, draw
from randlora.report.page.finding import FoundRun
from randlora.report.page.grouping import Setting
from randlora.report.page.paper import PaperPoint, paper_points
from randlora.report.page.scores import scores_table
from randlora.report.page.tables import Cell, Table, arms_table, general_change, goal_words
from randlora.report.table import MISSING, binary_bytes, count

MOST_SETTINGS = 12
"""Settings that are drawn; runs of the others are in the table of all runs."""


@dataclass(frozen=True)
class SettingSection:
    """A setting on the page.

    Attributes:
        name: Its id.
        title: Its heading.
        arms: Its table.
        scores: What else its runs were scored on; None where that is nothing.
        drawings: Its figures.
        paper: The paper's figures for the same task; None where it has none.
    """

    name: str
    title: str
    arms: Table
    scores: Table | None
    drawings: list[Drawing]
    paper: Table | None


def section(setting: Setting, name: str) -> SettingSection:
    """Draw a setting.

    Args:
        setting: The setting.
        name: Its id on the page, with which the names of its figures begin.
    """
    paper = paper_points(setting.example.config, setting.unit)
    drawings = [
        draw(f"{name}-{kind}", f"{title}: {setting.title}", title, f"{words} {_standing(setting)}".strip(), make)
        for kind, title, words, make in _figures(setting, paper)
    ]
    arms, scores = arms_table(setting, f"{name}-methods"), scores_table(setting, f"{name}-scores")
    return SettingSection(name, setting.title, arms, scores, drawings, _paper(paper, name))


def _figures(setting: Setting, paper: list[PaperPoint]) -> list[tuple[str, str, str, Callable[[], Figure]]]:
    """Kind, title, what it is and what makes it, of each figure."""
    goal = setting.goal
    found: list[tuple[str, str, str, Callable[[], Figure]]] = []
    if any(figures.loss_points(run) for run in setting.runs):
        for kind, by_time in (("step", False), ("time", True)):
            make = partial(figures.curves, setting, figures.loss_points, by_time=by_time)
            found.append((f"loss-by-{kind}", f"Training loss by {kind}", "A line for each run.", make))
    # Two points, before and after, are in the table.
    if any(len(figures.goal_points(run)) > 2 for arm in setting.arms for run in arm.chosen):
        for kind, by_time in (("step", False), ("time", True)):
            make = partial(figures.curves, setting, figures.goal_points, by_time=by_time)
            found.append((f"goal-by-{kind}", f"{_capital(goal)} by {kind}", "A line for each run.", make))
    if any(len(arm.rates) + len(arm.diverged) > 1 for arm in setting.arms):
        words = "A line for each method, its best rate ringed, rates at which it diverged crossed at the lower edge."
        make = partial(figures.rate_curves, setting)
        found.append(("rates", f"{_capital(goal)} by learning rate", words, make))
    # One method alone is a point with nothing to hold it against.
    if sum(setting.score(arm) is not None for arm in setting.arms) + len(paper) < 2:
        return found
    costs: list[tuple[str, str, figures.Cost, list[tuple[PaperPoint, float | None]]]] = [
        ("numbers", "trained numbers", _numbers, [(point, point.numbers) for point in paper]),
        ("seconds", "seconds of training", _seconds, []),
        ("memory", "peak memory (GB)", _memory, [(p, p.memory / 1e9) for p in paper if p.memory is not None]),
    ]
    if any(general_change(run) is not None for run in setting.runs):
        costs.append(("forgetting", "rise of the loss on a general text", general_change, []))
    for kind, xlabel, cost, points in costs:
        words = "A point for each method, with its standard deviation over seeds."
        make = partial(figures.score_by, setting, cost, xlabel, points)
        found.append((f"score-by-{kind}", f"{_capital(goal)} by {xlabel.partition(' (')[0]}", words, make))
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:].replace("_", " ")


def _numbers(run: FoundRun) -> float:
    return run.record.trainable_parameters


def _seconds(run: FoundRun) -> float:
    return run.record.train_seconds


def _memory(run: FoundRun) -> float:
    return run.record.peak_memory_bytes / 1e9


def _standing(setting: Setting) -> str:
    """The arms with their scores, for who does not see the figure."""
    known = [arm for arm in setting.arms if setting.score(arm) is not None][:4]
    words = ", ".join(f"{arm.label} {goal_words(setting.score(arm), setting.unit)}" for arm in known)
    return f"{_capital(setting.goal)}: {words}." if words else ""


def _paper(points: list[PaperPoint], name: str) -> Table | None:
    if not points:
        return None
    rows = [
        [
            Cell(point.method),
            Cell(f"{point.value:.1f}", point.value),
            Cell(MISSING if point.numbers is None else count(point.numbers), point.numbers),
            Cell(MISSING if point.memory is None else binary_bytes(point.memory), point.memory),
            Cell(point.source),
        ]
        for point in points
    ]
    headings = [("method", False), ("score (%)", True), ("trained numbers", True), ("memory", True), ("where", False)]
    return Table(f"{name}-paper", "The paper's figures for this task (arXiv 2502.00987v2, on its GPU)", headings, rows)
