"""Mean ranks over several studies as text, Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from randlora.report.study import rank_in_words
from randlora.report.table import Column, count, markdown_table, text_table
from randlora.result import Result


def ranks_in_text(result: Result) -> str:
    """For the terminal: the ranks, what they are made of, what they hold for."""
    tables = (text_table(result.rows, _RANKS), text_table(result.more["columns"], _by_column(result)))
    return "\n".join([tables[0], "", tables[1], "", *result.summary])


def ranks_in_markdown(result: Result) -> str:
    """A page in Markdown."""
    summary = [f"- {line}" for line in result.summary]
    tables = (markdown_table(result.rows, _RANKS), markdown_table(result.more["columns"], _by_column(result)))
    return "\n".join([f"# {result.title}", "", *summary, "", tables[0], "", tables[1], ""])


def ranks_in_csv(result: Result) -> str:
    """A line for each method: its mean rank, and its rank in every column."""
    columns = result.more["columns"]
    memory = io.StringIO()
    names = ["method", "rank", "low", "high", "columns", "first", *(column["column"] for column in columns)]
    writer = csv.DictWriter(memory, names)
    writer.writeheader()
    for row in result.rows:
        by_column = {column["column"]: column["methods"][row["method"]]["rank"] for column in columns}
        writer.writerow({"method": row["method"], **row["rank"], "first": row["first"], **by_column})
    return memory.getvalue()


def ranks_in_json(result: Result) -> str:
    """Every number."""
    return json.dumps({"title": result.title, "summary": list(result.summary), **result.data}, indent=1) + "\n"


FORMATS: dict[str, Callable[[Result], str]] = {
    "markdown": ranks_in_markdown,
    "csv": ranks_in_csv,
    "json": ranks_in_json,
}

_RANKS = [Column("method", "method"), Column("mean rank", "rank", rank_in_words), Column("first in", "first", count)]


def _by_column(result: Result) -> list[Column]:
    """A column for each method, as the columns of the studies are the lines."""
    trained = Column("trained", "trained", lambda counts: " to ".join(dict.fromkeys(map(count, counts))))
    methods = [Column(row["method"], f"methods.{row['method']}", _figure) for row in result.rows]
    return [Column("column", "column"), trained, *methods]


def _figure(found: dict[str, Any]) -> str:
    """What a method scored in a column, and which rank that is."""
    digits = 2 if found["unit"] == "%" else 4
    return f"{found['shown']:.{digits}f} ({found['rank']:g})"
