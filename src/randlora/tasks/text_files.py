"""Rows of CSV and JSON files: the cells are strings as written, and what is wrong is named with its line."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from randlora.errors import DataError
from randlora.tasks.columns import require_columns

Cells = tuple[str | None, ...]

LARGEST_CELL = 2**31 - 1
"""Characters in a cell of a CSV file, in place of Python's limit of 131,072."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
"""A NUL, or a byte that is not UTF-8 in the form in which Python hands it on."""

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}


def refuse_compressed(path: Path) -> None:
    """Check by its content that a file is not compressed, since nobody knows how much would come out.

    Raises:
        DataError: It is.
    """
    with path.open("rb") as file:
        start = file.read(8)
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(str(path), expected="a file that is not compressed", got=name, hint="unpack it first")


def csv_rows(path: Path, columns: Sequence[str], names: Sequence[str] | None = None) -> Iterator[Cells]:
    """Read CSV with commas and double quotes, or TSV with tabs and quotes that are letters like others.

    Args:
        path: The file; its ending tells which.
        columns: Names of the columns wanted.
        names: Names of all columns, where they do not stand in the first line.

    Yields:
        The cells of a row. Blank lines are no rows.

    Raises:
        DataError: A line has more or fewer cells than the first, a quote is not closed, or a column is missing.
    """
    reader = csv.reader(text_lines(path), **dialect(path))
    limit_before = csv.field_size_limit(LARGEST_CELL)
    header = list(names or [])
    line = 1
    try:
        if header:
            require_columns(str(path), columns, header)
            places = [header.index(column) for column in columns]
        for cells in reader:
            if cells and not header:
                header = cells
                require_columns(str(path), columns, header)
                places = [header.index(column) for column in columns]
            elif cells and len(cells) != len(header):
                raise DataError(
                    f"{path}: line {line}",
                    expected=f"{len(header)} cells, as {'in the first line' if names is None else 'data.columns says'}",
                    got=str(len(cells)),
                    hint=_hint(path, len(header)),
                )
            elif cells:
                yield tuple(cells[place] for place in places)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: line {line}", expected="CSV whose quoted cells end, with quotes in them doubled", got=str(error)
        ) from error
    finally:
        csv.field_size_limit(limit_before)
    require_columns(str(path), columns, header)


def _hint(path: Path, cells: int) -> str:
    """What to do about a line with another number of cells."""
    if path.suffix.lower() == ".tsv":  # those of GLUE have a few such rows
        return f"cells hold neither tabs nor line breaks; awk -F '\\t' 'NF == {cells}' {path} leaves such rows out"
    return "put cells with commas or line breaks in double quotes"


def dialect(path: Path) -> dict[str, Any]:
    """Arguments of `csv.reader` for a file of this name."""
    if path.suffix.lower() == ".tsv":
        return {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "strict": True}
    return {"strict": True}


def json_rows(path: Path, columns: Sequence[str]) -> Iterator[Cells]:
    """Read an array of objects, or one object per line.

    Args:
        path: The file.
        columns: The keys wanted.

    Yields:
        The cells of a row: strings, numbers as written, true and false; None for null, NaN and keys that are not there.

    Raises:
        DataError: It is not JSON, a key appears twice in an object or in none, or a cell is an array or an object.
    """
    keys: dict[str, None] = {}
    for where, record in _json_records(path):
        if not isinstance(record, dict):
            raise DataError(where, expected="an object with the columns as keys", got=str(record))
        keys.update(dict.fromkeys(record))
        yield tuple(_cell(record.get(column), f"{where}, column '{column}'") for column in columns)
    if keys:
        require_columns(str(path), columns, list(keys))


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a file in UTF-8, with their ends, which may lie inside a quoted cell."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for number, line in enumerate(file, start=1):
            wrong = _NOT_TEXT.search(line)
            if wrong:
                raise DataError(
                    f"{path}: line {number}",
                    expected="text in UTF-8",
                    got=f"the byte 0x{ord(wrong.group()) & 0xFF:02x}",
                    hint="save the file as UTF-8",
                )
            yield line


def _json_records(path: Path) -> Iterator[tuple[str, Any]]:
    """The objects, each with the place where it stands."""
    lines = enumerate(text_lines(path), start=1)
    first = next(((number, line) for number, line in lines if line.strip()), (1, ""))
    if first[1].lstrip().startswith("["):
        text = first[1] + "".join(line for _, line in lines)
        for row, record in enumerate(_parse(text, path, first[0])):
            yield f"{path}: row {row}", record
        return
    for number, line in chain([first], lines):
        if line.strip():
            yield f"{path}: line {number}", _parse(line, path, number)


def _parse(text: str, path: Path, first_line: int) -> Any:
    """JSON with its numbers as strings, so that 1 and 1.0 stay what they are and no number is too long."""
    line, wrong = first_line, "objects in objects without end"
    try:
        # An object that breaks off at the end of its line is wrong there, and not in the empty line after it.
        return json.loads(
            text.rstrip(), parse_int=str, parse_float=str, parse_constant=lambda _: None, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        line, wrong = first_line + error.lineno - 1, error.msg
    except KeyError as error:
        wrong = f"the key {error} twice in one object"
    except RecursionError:
        pass
    raise DataError(f"{path}: line {line}", expected="a JSON array of objects, or one JSON object per line", got=wrong)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise KeyError(key)
        record[key] = value
    return record


def _cell(value: Any, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str) or _SURROGATE.search(value):
        got = "half of a surrogate pair" if isinstance(value, str) else f"an {_kind(value)}"
        raise DataError(where, expected="a string, a number, true or false", got=got)
    return value


def _kind(value: Any) -> str:
    return "object" if isinstance(value, dict) else "array"
