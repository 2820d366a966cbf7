"""The table of a study as text, Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from randlora.report.table import MISSING, Column, binary_bytes, count, markdown_table, milliseconds, text_table
from randlora.result import Result

_LEFT_OUT = ("validation", "values", "seeds", "hardware")


def study_in_text(result: Result) -> str:
    """For the terminal: the figures, the costs, what they hold for."""
    tables = (text_table(result.rows, figure_columns(result)), text_table(result.rows, cost_columns(result)))
    return "\n".join([tables[0], "", tables[1], "", *result.summary])


def study_in_markdown(result: Result) -> str:
    """A page in Markdown."""
    summary = [f"- {line}" for line in result.summary]
    description = [result.data["description"], ""] if result.data["description"] else []
    columns = (figure_columns(result), cost_columns(result))
    figures, costs = (markdown_table(result.rows, own) for own in columns)
    return "\n".join([f"# {result.title}", "", *description, *summary, "", figures, "", costs, ""])


def study_in_csv(result: Result) -> str:
    """A line for each cell, with everything that is one number or one word."""
    cells: Sequence[dict[str, Any]] = result.data["cells"]
    memory = io.StringIO()
    writer = csv.DictWriter(memory, [key for key in cells[0] if key not in _LEFT_OUT], extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**cell, "budget": "" if cell["budget"] is None else json.dumps(cell["budget"])} for cell in cells)
    return memory.getvalue()


def study_in_json(result: Result) -> str:
    """Every number."""
    return json.dumps({"title": result.title, "summary": list(result.summary), **result.data}, indent=1) + "\n"


FORMATS = {"markdown": study_in_markdown, "csv": study_in_csv, "json": study_in_json}


def figure_columns(result: Result) -> list[Column]:
    """The columns of what a study found: a task and its shots each, the paper's beside it, the mean rank."""
    columns = [Column("method", "row")]
    cells = {cell["column"]: cell for cell in result.data["cells"]}
    for name, cell in cells.items():
        unit = f" ({cell['unit']})" if cell["unit"] else f" ({cell['goal']})"
        columns.append(Column(f"{name}{unit}", f"columns.{name}", _figure))
        if any(other["paper"] for other in result.data["cells"] if other["column"] == name):
            columns.append(Column("paper", f"columns.{name}.paper", str))
    for name, average in {average["column"]: average for average in result.data["averages"]}.items():
        columns.append(Column(f"{name} ({average['unit']})" if average["unit"] else name, f"averages.{name}", _figure))
        columns.append(Column("paper", f"averages.{name}.paper", str))
    if result.data["ranks"]:
        columns.append(Column("mean rank", "rank", rank_in_words))
    return columns


def _figure(cell: dict[str, Any]) -> str:
    """A cell: its mean or median and the standard deviation, or why there is none."""
    if cell["shown"] is None:
        return MISSING if cell["state"] == "missing" else cell["state"]
    digits = 2 if cell["unit"] == "%" else 4
    spread = "" if cell["sd"] is None else f" ± {cell['sd']:.{digits}f}"
    return f"{cell['shown']:.{digits}f}{spread}"


def rank_in_words(rank: dict[str, float]) -> str:
    """A mean rank and the interval in which it lies."""
    around = f" [{rank['low']:.1f}, {rank['high']:.1f}]" if "low" in rank else ""
    return f"{rank['rank']:.2f}{around}"


def cost_columns(result: Result) -> list[Column]:
    """The columns of what its methods cost."""
    columns = [Column("method", "row"), Column("trained", "trained", count)]
    if any(row["paper_trained"] for row in result.rows):
        columns.append(Column("paper", "paper_trained", str))
    columns += [
        Column("step", "step_seconds", milliseconds),
        *_relative(result, "time"),
        Column("peak memory", "peak_memory_bytes", binary_bytes),
        *_relative(result, "memory"),
        Column("adapter", "adapter_bytes", binary_bytes),
    ]
    if any(row["forgotten"] is not None for row in result.rows):
        columns.append(Column("forgotten", "forgotten", "{:+.4f}".format))
    return columns


def _relative(result: Result, kind: str) -> list[Column]:
    """Time or memory in percent of a row's, and the paper's, where the suite names that row."""
    of = next((row["costs"]["of"] for row in result.rows if row.get("costs")), None)
    if of is None:
        return []
    return [Column(f"% of {of}", f"costs.{kind}", "{:.0f}".format), Column("paper", f"costs.paper_{kind}", str)]
