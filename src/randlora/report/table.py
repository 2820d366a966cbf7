"""Records as tables: aligned text for the terminal, Markdown for a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "–"
"""What a cell shows when its row has no such value."""


def lookup(row: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, such as "metrics.test_accuracy"; None where there is none.

    >>> lookup({"metrics": {"test_accuracy": 93.2}}, "metrics.test_accuracy")
    93.2
    """
    value: Any = row
    for part in key.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def count(value: float) -> str:
    """A whole number with separators between the thousands.

    >>> count(29952)
    '29,952'
    """
    return f"{value:,.0f}"


def percent(value: float) -> str:
    """A number that is in percent already, with one decimal.

    >>> percent(93.25)
    '93.2'
    """
    return f"{value:.1f}"


def milliseconds(value: float) -> str:
    """Seconds as milliseconds.

    >>> milliseconds(0.0421)
    '42 ms'
    """
    return f"{1000 * value:.0f} ms"


def binary_bytes(value: float) -> str:
    """Bytes in the largest unit that leaves at least one of it.

    >>> binary_bytes(130_381)
    '127.3 KiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its heading.
        key: Dotted key of its values.
        form: How a value is written; with None the values are text, and aligned left.
    """

    title: str
    key: str
    form: Callable[[Any], str] | None = None

    def cell(self, row: Mapping[str, Any]) -> str:
        """The text for one row."""
        value = lookup(row, self.key)
        if value is None:
            return MISSING
        return str(value) if self.form is None else self.form(value)


def run_columns(unit: str) -> tuple[Column, ...]:
    """What a run's record says about its method's price and worth.

    Trained parameters, the task's goal before and after training, median time of a step, peak memory, size of the
    adapter folder.

    Args:
        unit: Of the goal, "%" or none.
    """
    form = percent if unit == "%" else "{:.4f}".format
    unit = f" ({unit})" if unit else ""
    return (
        Column("trained", "trainable_parameters", count),
        Column(f"before{unit}", "before", form),
        Column(f"after{unit}", "after", form),
        Column("step", "step_seconds_median", milliseconds),
        Column("peak memory", "peak_memory_bytes", binary_bytes),
        Column("adapter", "adapter_bytes", binary_bytes),
    )


def text_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """An aligned table for a terminal: numbers to the right, text to the left, a rule below the headings.

    Args:
        rows: One mapping per line.
        columns: What to show.

    Returns:
        Lines without trailing blanks, joined by newlines.
    """
    cells = _cells(rows, columns)
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = ["  ".join(_pad(columns, widths, line)).rstrip() for line in cells]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """The same as a Markdown table.

    Args:
        rows: One mapping per line.
        columns: What to show.
    """
    cells = [[cell.replace("|", "\\|") for cell in line] for line in _cells(rows, columns)]
    lines = [f"| {' | '.join(line)} |" for line in cells]
    lines.insert(1, f"|{'|'.join(' :-- ' if column.form is None else ' --: ' for column in columns)}|")
    return "\n".join(lines)


def _cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[list[str]]:
    """Headings first, then one list per row."""
    return [[column.title for column in columns], *([column.cell(row) for column in columns] for row in rows)]


def _pad(columns: Sequence[Column], widths: Sequence[int], line: Sequence[str]) -> list[str]:
    return [
        cell.ljust(width) if column.form is None else cell.rjust(width)
        for column, width, cell in zip(columns, widths, line, strict=True)
    ]
