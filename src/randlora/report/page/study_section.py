"""A study on the page: its own table with mean ranks, what it cost, what failed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from randlora.messages import printable
from randlora.report.analysis_plots import plain
from randlora.report.page.drawing import Drawing, draw
from randlora.report.page.studies import FoundStudy
from randlora.report.page.tables import Cell, Table
from randlora.report.plots import COLOURS, tick_name
from randlora.report.study import cost_columns, figure_columns
from randlora.report.table import Column, lookup


@dataclass(frozen=True)
class StudySection:
    """A study on the page.

    Attributes:
        name: Its id.
        title: Its heading.
        description: What the study asks; empty where its suite does not say.
        conditions: What its figures hold for, a line each.
        tables: Its figures, and its costs.
        drawings: Its mean ranks; none where too little is done for them.
        told: Headings with lines: where training diverged, what failed.
    """

    name: str
    title: str
    description: str
    conditions: list[str]
    tables: list[Table]
    drawings: list[Drawing]
    told: list[tuple[str, list[str]]]


def study_section(study: FoundStudy, name: str) -> StudySection:
    """A study for the page.

    Args:
        study: The study.
        name: Its id on the page.
    """
    result = study.result
    tables = [
        _table(result.rows, figure_columns(result), f"{name}-figures", f"{result.title}: methods by task"),
        _table(result.rows, cost_columns(result), f"{name}-costs", f"{result.title}: costs, medians over the tasks"),
    ]
    ranks: dict[str, dict[str, float]] = result.data["ranks"]
    drawings = []
    if ranks:
        columns = int(next(iter(ranks.values()))["columns"])
        title = f"Mean rank over {columns} {'column' if columns == 1 else 'columns'} that every method has"
        words = "1 is best; the bars are the intervals (95 %) when the columns are drawn anew. "
        words += ", ".join(f"{row} {rank['rank']:.2f}" for row, rank in _best_first(ranks))
        drawings.append(draw(f"{name}-ranks", f"{title}: {result.title}", title, words, partial(_rank_figure, ranks)))
    description = printable(" ".join(result.data["description"].split()))
    told = [("Learning rates at which training diverged", study.diverged), ("What failed", study.failed)]
    return StudySection(name, result.title, description, list(result.summary), tables, drawings, told)


def _best_first(ranks: Mapping[str, dict[str, float]]) -> list[tuple[str, dict[str, float]]]:
    return sorted(ranks.items(), key=lambda entry: entry[1]["rank"])


def _rank_figure(ranks: Mapping[str, dict[str, float]]) -> Figure:
    """A line for each method, the best on top."""
    ordered = _best_first(ranks)
    figure = Figure(figsize=(4.8, 0.9 + 0.28 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    for height, (_, rank) in enumerate(ordered):
        low, high = rank.get("low", rank["rank"]), rank.get("high", rank["rank"])
        axes.plot([low, high], [height, height], color=COLOURS[0], alpha=0.5)
        axes.plot([rank["rank"]], [height], "o", color=COLOURS[0])
    axes.set_yticks(range(len(ordered)), [tick_name(row) for row, _ in ordered])
    axes.set_ylim(len(ordered) - 0.5, -0.5)
    plain(axes, "mean rank", "")
    return figure


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], name: str, title: str) -> Table:
    headings = [(printable(column.title), column.form is not None) for column in columns]
    cells = [[Cell(printable(column.cell(row)), _value(lookup(row, column.key))) for column in columns] for row in rows]
    return Table(name, title, headings, cells)


def _value(content: Any) -> float | None:
    """What a column is sorted by: a number, a cell's mean, a rank, a figure of the paper's."""
    if isinstance(content, Mapping):
        content = content.get("mean", content.get("rank"))
    if isinstance(content, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", content):
        return float(content)
    return content if isinstance(content, int | float) else None
