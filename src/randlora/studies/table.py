"""The table of a study: methods and budgets down, tasks and shots across, the paper's figures beside ours."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from randlora.result import Result
from randlora.studies.averages import averages
from randlora.studies.cells import column_of
from randlora.studies.conditions import conditions, in_words
from randlora.studies.paper import paper_costs, paper_figure, paper_trained
from randlora.studies.progress import Progress, goal_of
from randlora.studies.ranks import mean_ranks
from randlora.studies.scores import columns_of
from randlora.studies.study import Study
from randlora.tasks import Goal
from randlora.training.run import Record


def study_table(study: Study) -> Result:
    """What a study has found so far.

    Returns:
        Rows have "row", "trained", "step_seconds", "peak_memory_bytes", "adapter_bytes", "forgotten", "rank", "costs",
        in percent of another row's beside the paper's, and "columns", by column "shown", the suite's `statistic`, "sd"
        and "paper". `data` has every cell with all its values in "cells", the suite's "methods", "averages" over the
        tasks, "ranks", "costs", and the "conditions" of both.
    """
    found = study.progress()
    cells = [cell for entry in found for cell in _cells(study, entry)]
    scores: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell["shown"] is not None:
            scores.setdefault(cell["row"], {})[cell["column"]] = cell["shown"]
    higher = {cell["column"]: cell["higher"] for cell in cells}
    ranks = mean_ranks(scores, higher) if len(scores) > 1 else {}  # alone, everybody is first
    found_averages = averages(study.suite, cells)
    rows = [_row(study, row, cells, found_averages, ranks.get(row)) for row in _rows(cells)]
    for row in rows:
        row["costs"] = _relative(study, row, rows)
    costs = {row["row"]: row["costs"] for row in rows if row["costs"]}
    data: dict[str, Any] = {
        "suite": study.suite.name,
        "description": study.suite.description,
        "methods": study.suite.methods,
        "conditions": conditions(study, found),
        "cells": cells,
        "averages": found_averages,
        "ranks": ranks,
        "costs": costs,
    }
    title = f"Study {study.suite.name}"
    return Result("study", title, in_words(study, cells, data["conditions"]), rows, data)


def _rows(cells: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(cell["row"] for cell in cells))


@dataclass(frozen=True)
class _Figure:
    """One figure of a cell: its place in the table, what it is, and its value of every seed."""

    task: str
    shots: str | None
    goal: Goal
    values: list[float | None]

    @property
    def column(self) -> str:
        return column_of(self.task, self.shots)


def _cells(study: Study, entry: Progress) -> list[dict[str, Any]]:
    """What is shown of a cell: its score on the test split or, where the suite asks for scores, these."""
    cell, score = entry.cell, study.suite.score
    if score is None:
        values = [record.metrics[f"test_{record.goal}"] for record in entry.records()]
        return [_cell(study, entry, _Figure(cell.task, cell.shots, goal_of(cell.config), values))]
    return [
        _cell(study, entry, _Figure(name, cell.column, Goal(name, unit=unit), entry.scores_of(name)))
        for name, unit in columns_of(score).items()
    ]


def _cell(study: Study, entry: Progress, figure: _Figure) -> dict[str, Any]:
    cell, records = entry.cell, entry.records()
    values = [value for value in figure.values if value is not None]
    whole = len(values) == len(cell.seeds)  # a mean over some of the seeds is none of the study's
    paper = paper_figure(study.suite, cell.row, figure.task, figure.shots)
    mean, median = (of(values) if whole else None for of in (statistics.fmean, statistics.median))
    return {
        "row": cell.row,
        "method": cell.method,
        "budget": cell.budget,
        "column": figure.column,
        "task": figure.task,
        "shots": figure.shots,
        "state": _state(entry) if values or not figure.values else "missing",
        "goal": figure.goal.metric,
        "unit": figure.goal.unit,
        "higher": figure.goal.higher,
        "mean": mean,
        "sd": statistics.stdev(values) if whole and len(values) > 1 else None,
        "median": median,
        "shown": median if study.suite.statistic == "median" else mean,
        "values": values,
        "seeds": list(cell.seeds),
        "learning_rate": entry.chosen,
        "validation": {f"{rate:g}": score for rate, score in entry.scores.items()},
        "trained": records[0].trainable_parameters if records else None,
        "head": records[0].head_parameters if records else None,
        "step_seconds": _median(records, lambda record: record.step_seconds_median),
        "peak_memory_bytes": _median(records, lambda record: record.peak_memory_bytes),
        "adapter_bytes": records[0].adapter_bytes if records else None,
        "forgotten": _median(records, _forgotten),
        "hardware": records[0].hardware if records else None,
        "paper": paper[1] if paper else None,
        "paper_table": paper[0].table if paper else None,
        "error": next((outcome.error for _, outcome in entry.units if outcome.error), None),
    }


def _state(entry: Progress) -> str:
    if entry.count("failed"):
        return "failed"
    if entry.count("running"):
        return "running"
    if entry.count("missing"):
        return "missing"
    return "done" if len(entry.records()) == len(entry.cell.seeds) else "diverged"


def _forgotten(record: Record) -> float | None:
    """How far the loss on a text that the task does not hold rose in training."""
    before, after = record.metrics.get("general_loss_before"), record.metrics.get("general_loss")
    return None if before is None or after is None else after - before


def _median(records: Iterable[Record], of: Callable[[Record], float | None]) -> float | None:
    values = [value for record in records if (value := of(record)) is not None]
    return statistics.median(values) if values else None


def _relative(study: Study, row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """A row's time and memory in percent of another's, beside the paper's; None where the suite names no such row."""
    printed = paper_costs(study.suite, row["row"])
    if printed is None:
        return None
    of, paper = printed
    whole = next(other for other in rows if other["row"] == of)
    found: dict[str, Any] = {"of": of, **{f"paper_{kind}": figure for kind, figure in paper.items()}}
    for kind, name in (("time", "step_seconds"), ("memory", "peak_memory_bytes")):
        known = row[name] is not None and whole[name]
        found[kind] = 100 * row[name] / whole[name] if known else None
    return found


def _row(
    study: Study,
    row: str,
    cells: list[dict[str, Any]],
    found_averages: list[dict[str, Any]],
    rank: dict[str, float] | None,
) -> dict[str, Any]:
    """A line of the table: its figures by column, and what the method costs, the median over the columns."""
    cells = [cell for cell in cells if cell["row"] == row]
    costs = {}
    for name in ("trained", "step_seconds", "peak_memory_bytes", "adapter_bytes", "forgotten"):
        values = [cell[name] for cell in cells if cell[name] is not None]
        costs[name] = statistics.median(values) if values else None
    return {
        "row": row,
        "columns": {cell["column"]: cell for cell in cells},
        "averages": {average["column"]: average for average in found_averages if average["row"] == row},
        "rank": rank,
        "paper_trained": paper_trained(study.suite, row),
        **costs,
    }
