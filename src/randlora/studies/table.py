"""The table of a study: methods and budgets down, tasks and shots across, the paper's figures beside ours."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from randlora.result import Result
from randlora.studies.averages import averages
from randlora.studies.paper import paper_figure, paper_trained
from randlora.studies.progress import Progress, goal_of
from randlora.studies.ranks import mean_ranks
from randlora.studies.study import Study
from randlora.training.config import OptimizationConfig
from randlora.training.run import Record


def study_table(study: Study) -> Result:
    """What a study has found so far.

    Returns:
        Rows have "row", "trained", "step_seconds", "peak_memory_bytes", "adapter_bytes", "forgotten", "rank" and
        "columns", by column "shown", the suite's `statistic`, "sd" and "paper". `data` has every cell with all its
        values in "cells", "averages" over the tasks, "ranks", and the "conditions" of both.
    """
    found = study.progress()
    cells = [_cell(study, entry) for entry in found]
    scores: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell["shown"] is not None:
            scores.setdefault(cell["row"], {})[cell["column"]] = cell["shown"]
    higher = {entry.cell.column: goal_of(entry.cell.config).higher for entry in found}
    ranks = mean_ranks(scores, higher) if len(scores) > 1 else {}  # alone, everybody is first
    found_averages = averages(study.suite, cells)
    rows = [_row(study, row, cells, found_averages, ranks.get(row)) for row in _rows(cells)]
    data: dict[str, Any] = {
        "suite": study.suite.name,
        "description": study.suite.description,
        "conditions": _conditions(study, found),
        "cells": cells,
        "averages": found_averages,
        "ranks": ranks,
    }
    title = f"Study {study.suite.name}"
    return Result("study", title, _summary(study, cells, data["conditions"]), rows, data)


def _rows(cells: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(cell["row"] for cell in cells))


def _cell(study: Study, entry: Progress) -> dict[str, Any]:
    cell, records = entry.cell, entry.records()
    values = [value for record in records if (value := record.metrics[f"test_{record.goal}"]) is not None]
    whole = len(values) == len(cell.seeds)  # a mean over some of the seeds is none of the study's
    paper = paper_figure(study.suite, cell.row, cell.task, cell.shots)
    goal = goal_of(cell.config)
    mean, median = (of(values) if whole else None for of in (statistics.fmean, statistics.median))
    return {
        "row": cell.row,
        "method": cell.method,
        "budget": cell.budget,
        "column": cell.column,
        "task": cell.task,
        "shots": cell.shots,
        "state": _state(entry),
        "goal": records[0].goal if records else goal.metric,
        "unit": records[0].unit if records else goal.unit,
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


def _conditions(study: Study, found: list[Progress]) -> dict[str, Any]:
    config = found[0].cell.config
    return {
        "ours": {
            "models": sorted({entry.cell.config.model for entry in found}),
            "seeds": list(study.suite.seeds),
            "rates": sorted({len(entry.cell.rates) for entry in found}),
            "batch_size": config.optimization.batch_size,
            "lengths": sorted({_length(entry.cell.config.optimization) for entry in found}, key=_count),
        },
        "paper": [
            {"table": paper.table, "backbone": paper.backbone, "conditions": paper.conditions}
            for paper in study.suite.paper
        ],
    }


def _length(optimization: OptimizationConfig) -> str:
    """How long a run trains, in words."""
    steps = optimization.max_steps > 0
    count, unit = (optimization.max_steps, "step") if steps else (optimization.epochs, "epoch")
    return f"{count:g} {unit if count == 1 else f'{unit}s'}"


def _count(length: str) -> float:
    return float(length.partition(" ")[0])


def _in_words(lengths: Sequence[str]) -> str:
    """A few lengths, each; of many, of one unit, the shortest and the longest."""
    units = {length.partition(" ")[2].removesuffix("s") for length in lengths}
    if len(lengths) <= 3 or len(units) > 1:
        return " or ".join(lengths)
    return f"{lengths[0].partition(' ')[0]} to {lengths[-1]}"


def _summary(study: Study, cells: list[dict[str, Any]], conditions: dict[str, Any]) -> list[str]:
    ours = conditions["ours"]
    seeds = len(study.suite.seeds)
    (rates,) = ours["rates"]
    chosen = (
        f"learning rate chosen on the validation split from {rates} and more where the best was at an edge"
        if rates > 1
        else "one learning rate"
    )
    lines = [
        f"ours: {', '.join(ours['models'])}; {_in_words(ours['lengths'])}; {chosen}; "
        f"test split, {study.suite.statistic} ± standard deviation over {seeds} {'seed' if seeds == 1 else 'seeds'}"
    ]
    for paper in conditions["paper"]:
        what = f"; {paper['conditions']}" if paper["conditions"] else ""
        lines.append(f"the paper's: Table {paper['table']}, {paper['backbone']}{what}")
    for state in ("missing", "running", "failed", "diverged"):
        count = sum(cell["state"] == state for cell in cells)
        if count:
            lines.append(f"{count} of {len(cells)} cells {state}")
    return lines
