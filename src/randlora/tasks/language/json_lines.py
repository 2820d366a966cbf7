"""JSON files with nested rows: an array of objects or one object per line, each with its place."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from randlora.errors import DataError
from randlora.tasks.text_files import text_lines


def json_records(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Read the objects of a file.

    Args:
        path: The file.

    Yields:
        The place of an object ("line 3", or "row 2" of an array), the object, and its JSON text.

    Raises:
        DataError: It is not JSON in UTF-8, a key stands twice in an object, or a row is no object.
    """
    lines = enumerate(text_lines(path), start=1)
    first = next(((number, line) for number, line in lines if line.strip()), (1, ""))
    if first[1].lstrip().startswith("["):
        text = first[1] + "".join(line for _, line in lines)
        for row, record in enumerate(_parse(text, path, first[0])):
            yield f"row {row}", _object(record, f"{path}: row {row}"), json.dumps(record)
        return
    for number, line in chain([first], lines):
        if line.strip():
            yield f"line {number}", _object(_parse(line.strip(), path, number), f"{path}: line {number}"), line.strip()


def load_json(text: str) -> Any:
    """A value from JSON; NaN and infinities, which JSON has not, become None.

    Raises:
        ValueError: It is not JSON.
        KeyError: A key stands twice in an object.
    """
    return json.loads(text, parse_constant=lambda _: None, object_pairs_hook=_unique)


def _parse(text: str, path: Path, first_line: int) -> Any:
    line = first_line
    try:
        return load_json(text)
    except json.JSONDecodeError as error:
        line, wrong = first_line + error.lineno - 1, error.msg
    except KeyError as error:
        wrong = f"the key {error} twice in one object"
    except ValueError:
        wrong = "a number of thousands of digits"
    except RecursionError:
        wrong = "objects in objects without end"
    raise DataError(f"{path}: line {line}", expected="a JSON array of objects, or one JSON object per line", got=wrong)


def _object(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(where, expected="an object with the columns as keys", got=json.dumps(record)[:80])
    return record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise KeyError(key)
        record[key] = value
    return record
