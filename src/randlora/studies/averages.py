"""Averages over all tasks of a study, beside those that the paper prints."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from randlora.studies.paper import paper_average
from randlora.studies.suite import Suite


def averages(suite: Suite, cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every row and shots the average over the tasks; none where the suite names no average of the paper's.

    Args:
        suite: The suite.
        cells: All cells of the table.

    Returns:
        By row and shots "column", the name of the average; "tasks", how many there are; "shown", the average of what is
        shown of them, or None where one is missing; "sd", the standard deviation over the seeds of the average of a
        seed's scores, with these in "values"; "state" and "unit"; "paper" and "paper_table".
    """
    if not any(paper.average for paper in suite.paper):
        return []
    return [
        _average(suite, row, shots, [cell for cell in cells if (cell["row"], cell["shots"]) == (row, shots)])
        for shots in dict.fromkeys(cell["shots"] for cell in cells)
        for row in dict.fromkeys(cell["row"] for cell in cells)
    ]


def _average(suite: Suite, row: str, shots: str | None, cells: list[dict[str, Any]]) -> dict[str, Any]:
    whole = all(cell["shown"] is not None for cell in cells)
    values = [statistics.fmean(scores) for scores in zip(*_values(cells), strict=True)] if whole else []
    units = {cell["unit"] for cell in cells}
    paper = paper_average(suite, row, shots)
    return {
        "row": row,
        "shots": shots,
        "column": f"average of {len(cells)}" + ("" if shots is None else f" {shots}"),
        "tasks": len(cells),
        "shown": statistics.fmean(cell["shown"] for cell in cells) if whole else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "values": values,
        "state": "done" if whole else "missing",
        "unit": units.pop() if len(units) == 1 else "",
        "paper": paper[1] if paper else None,
        "paper_table": paper[0].table if paper else None,
    }


def _values(cells: Iterable[dict[str, Any]]) -> Iterable[list[float]]:
    return (cell["values"] for cell in cells)
