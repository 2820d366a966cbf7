"""Results of analyses as files: JSON with every number, a Markdown page, pictures as PNG and SVG."""

import importlib.util
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from randlora.analysis.folder import PARTIAL, output_folder
from randlora.files import write_atomically, writing
from randlora.report.analysis_plots import FIGURES
from randlora.report.plots import literal
from randlora.report.table import Column, markdown_table, text_table
from randlora.result import Result


def _shares(digits: int) -> Callable[[Any], str]:
    return f"{{:.{digits}f}}".format


def columns_of(result: Result) -> list[Column]:
    """The columns of a result's table; those of an analysis that compares runs are its rows' own."""
    if result.name != "spectrum":
        return columns_of_rows(result.rows)
    ranks = [Column(f"{share} %", f"rank_{share}", "{:,}".format) for share in (50, 90, 99)]
    return [
        Column("layer", "layer"),
        Column("‖ΔW‖/‖W₀‖", "norm_ratio", _shares(4)),
        Column("stable", "stable_rank", _shares(1)),
        Column("effective", "effective_rank", _shares(1)),
        *ranks,
        Column("in U_k", "left", _shares(3)),
        Column("in V_k", "right", _shares(3)),
    ]


def columns_of_rows(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """A column for each key of the rows."""
    words = {key for row in rows for key, value in row.items() if isinstance(value, str)}
    return [Column(key, key, None if key in words else _number) for key in rows[0]]


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def in_text(result: Result) -> str:
    """A result for the terminal: its table and its summary."""
    more = [f"{title}\n{text_table(rows, columns_of_rows(rows))}\n" for title, rows in result.more.items()]
    return "\n".join([text_table(result.rows, columns_of(result)), *(["", *more] if more else []), *result.summary])


def in_markdown(result: Result) -> str:
    """A result as a page in Markdown, with its picture beside it."""
    picture = f"![{result.title}]({result.name}.png)"
    summary = [f"- {line}" for line in result.summary]
    table = markdown_table(result.rows, columns_of(result))
    more = [f"\n## {title}\n\n{markdown_table(rows, columns_of_rows(rows))}" for title, rows in result.more.items()]
    return "\n".join([f"# {result.title}", "", *summary, "", picture, "", table, *more, ""])


def write_result(result: Result, folder: str | Path) -> list[Path]:
    """Write a result's files, each whole or not at all; the one with the numbers last.

    Args:
        result: The result.
        folder: A folder that is new, empty or holds analyses.

    Returns:
        The files.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
    """
    path = output_folder(folder)
    # Whatever can fail is done before the first file is written.
    pictures = {kind: _drawn(literal(FIGURES[result.name](result)), kind) for kind in ("png", "svg")}
    contents: dict[str, str | bytes] = {**pictures}
    if result.name == "landscape" and importlib.util.find_spec("plotly") is not None:
        from randlora.report.surface import surface_page  # noqa: PLC0415 - plotly need not be there

        contents["html"] = surface_page(result)
    contents |= {"md": in_markdown(result), "json": json.dumps(_numbers_of(result), indent=1) + "\n"}
    written: list[Path] = []
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        for kind, content in contents.items():
            written.append(path / f"{result.name}.{kind}")
            write_atomically(written[-1], content)
        if result.name == "landscape":
            (path / PARTIAL).unlink(missing_ok=True)
    return written


def _numbers_of(result: Result) -> dict[str, Any]:
    more = {"more": dict(result.more)} if result.more else {}
    return {"title": result.title, "summary": list(result.summary), **result.data, **more}


def _drawn(figure: Figure, kind: str) -> bytes:
    memory = io.BytesIO()
    figure.savefig(memory, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return memory.getvalue()


def files_in_words(written: Sequence[Path]) -> str:
    """Where a result lies, for the terminal."""
    endings = ", ".join(path.suffix for path in written)
    return f"written to {written[0].parent}: {written[0].stem}{endings}"
