"""The results of analyses that lie beside runs, drawn again for the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from randlora.messages import printable, short
from randlora.report.analysis import columns_of, columns_of_rows
from randlora.report.analysis_plots import FIGURES, clipped
from randlora.report.page.drawing import Drawing, draw
from randlora.report.page.finding import FoundAnalysis
from randlora.report.page.tables import Cell, Table
from randlora.report.table import Column
from randlora.result import Result

_ROWS = {"spectrum": "layers", "cka": "layers", "landscape": "edges", "theory": "rows", "transfer": "rows"}
"""Where the rows of an analysis are in its file."""
_CAPTIONS = {
    "spectrum": "Singular values of every layer from blue (first) to orange, and the ranks that hold the energy",
    "cka": "CKA by depth",
    "landscape": "Contours of the loss, and the loss along the edges of the triangle",
    "theory": "The smallest error that was found, by trained numbers",
    "transfer": "Before (hollow) and after (filled) training",
}
_MOST_ROWS = 400
_DAMAGE = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
"""What reading or drawing a file raises that is not what an analysis wrote."""


@dataclass(frozen=True)
class ShownAnalysis:
    """An analysis on the page.

    Attributes:
        title: What was looked at.
        place: Where the file is.
        summary: What came out, a line each.
        drawing: Its figure.
        tables: Its rows, and further tables.
        surface: Of a landscape, what the page draws as a surface to turn, as JSON.
    """

    title: str
    place: str
    summary: list[str]
    drawing: Drawing
    tables: list[Table]
    surface: str | None


def show(found: FoundAnalysis, number: int) -> ShownAnalysis | str:
    """An analysis for the page, or a line that says why its file is passed over.

    Args:
        found: The file.
        number: Its place on the page.
    """
    place = printable(str(found.path))
    try:
        result = _result(found)
        name = f"analysis-{number}-{found.name}"
        summary = list(result.summary)
        drawing = draw(
            name, result.title, _CAPTIONS[found.name], " ".join(summary), lambda: FIGURES[found.name](result)
        )
        return ShownAnalysis(result.title, place, summary, drawing, _tables(result, name), _surface(result))
    except _DAMAGE as error:
        return f"{place}: not what an analysis writes ({type(error).__name__})"


def _result(found: FoundAnalysis) -> Result:
    content: dict[str, Any] = found.content
    rows = [{key: value for key, value in row.items() if key != "losses"} for row in content[_ROWS[found.name]]]
    summary = [printable(str(line)) for line in content["summary"]]
    more = {printable(str(title)): list(table) for title, table in content.get("more", {}).items()}
    return Result(found.name, printable(str(content["title"])), summary, rows, content, more)


def _tables(result: Result, name: str) -> list[Table]:
    first = _table(result.rows, columns_of(result), f"{name}-table", result.title)
    more = enumerate(result.more.items(), start=1)
    return [
        first,
        *(_table(rows, columns_of_rows(rows), f"{name}-more-{place}", title) for place, (title, rows) in more),
    ]


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], name: str, title: str) -> Table:
    cells = [[_cell(column.cell(row), row, column.key) for column in columns] for row in rows[:_MOST_ROWS]]
    return Table(name, title, [(printable(column.title), column.form is not None) for column in columns], cells)


def _cell(text: str, row: Mapping[str, Any], key: str) -> Cell:
    value = row.get(key)
    return Cell(printable(text), value if isinstance(value, int | float) else None)


def _surface(result: Result) -> str | None:
    if result.name != "landscape":
        return None
    data = result.data
    heights, _ = clipped(data)
    marks = zip(data["runs"], data["corners"], data["corner_losses"], strict=True)
    content = {
        "x": [float(x) for x in data["x"]],
        "y": [float(y) for y in data["y"]],
        "z": [[round(float(z), 6) for z in line] for line in heights],
        "marks": [{"name": short(str(name), 20), "x": x, "y": y, "z": z} for name, (x, y), z in marks],
    }
    return json.dumps(content, allow_nan=False)
