"""Rows of language data, nested ones too, from a file or the hub; each is named by its line or row in messages."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet

from randlora.errors import DataError
from randlora.tasks.hub import hub_rows
from randlora.tasks.language.forms import COLUMNS
from randlora.tasks.language.json_lines import json_records, load_json
from randlora.tasks.parquet import read_parquet
from randlora.tasks.paths import FILE, NOTHING, kind_of, local
from randlora.tasks.rows import is_local
from randlora.tasks.tables import SEPARATED, SUFFIXES
from randlora.tasks.text_files import csv_rows, dialect, refuse_compressed, text_lines

CHUNK = 10_000
"""Rows that are Python strings at one time."""


@dataclass(frozen=True)
class Records:
    """Rows of one source.

    Attributes:
        source: Where they come from.
        columns: Names of all its columns.
        table: What is kept of them.
        places: The line or row of each for messages, where it is not its number.
        as_json: Whether the table is one column of JSON texts, since objects of different make fit no table.
    """

    source: str
    columns: Sequence[str]
    table: datasets.Dataset
    places: Sequence[str] | None = None
    as_json: bool = False

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.table[index]
        if self.as_json:
            record: dict[str, Any] = load_json(row[_JSON])
            return record
        return {column: _without_nulls(value) for column, value in row.items()}

    def where(self, index: int) -> str:
        """The file and row of a record."""
        return f"{self.source}: {self.places[index] if self.places is not None else f'row {index}'}"


_JSON = "json"


def read_records(source: str, split: str = "train", subset: str | None = None) -> Records:
    """Read the rows of a file or of a data set on the hub.

    Args:
        source: A `.json`, `.jsonl`, `.csv`, `.tsv` or `.parquet` file, or a hub name.
        split: The hub data set's split; a file has one only.
        subset: The hub data set's configuration, where it has several.

    Raises:
        DataError: It cannot be read or has no rows; the message names the line.
    """
    if not is_local(source):
        table = hub_rows(source, split, subset)
        known = [column for column in table.column_names if column in COLUMNS]
        kept = table.select_columns(known) if known else table
        records = Records(f"{source}, split '{split}'", table.column_names, kept)
    else:
        records = _from_file(source)
    if len(records) == 0:
        raise DataError(source, expected="at least one row", got="none")
    return records


def _from_file(source: str) -> Records:
    path = local(source)
    found = kind_of(path)
    if found != FILE:
        got = "which does not exist" if found == NOTHING else found
        raise DataError("language data", expected="a data file or a hub name", got=f"{source}, {got}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError("language data", expected=f"a file ending in {', '.join(SUFFIXES)}", got=source)
    try:
        refuse_compressed(path)
        if suffix == ".parquet":
            return _from_parquet(path)
        return _from_csv(path) if suffix in SEPARATED else _from_json(path)
    except OSError as error:
        raise DataError(source, expected="a file that can be read", got=error.strerror or str(error)) from error


def _from_json(path: Path) -> Records:
    columns: dict[str, None] = {}
    places: list[str] = []

    def texts() -> Iterator[tuple[str]]:
        for place, record, text in json_records(path):
            columns.update(dict.fromkeys(record))
            places.append(place)
            yield (text,)

    table = _gather(texts(), [_JSON])
    return Records(str(path), list(columns), table, places, as_json=True)


def _from_csv(path: Path) -> Records:
    columns = _header(path)
    return Records(str(path), columns, _gather(csv_rows(path, columns), columns))


def _header(path: Path) -> list[str]:
    """The columns to read of a CSV file: those that some form has, or all where there is none, for the message."""
    try:
        names = next((cells for cells in csv.reader(text_lines(path), **dialect(path)) if cells), [])
    except csv.Error:  # which `csv_rows` will say with its line
        names = []
    return [name for name in dict.fromkeys(names) if name in COLUMNS] or names


def _from_parquet(path: Path) -> Records:
    try:
        columns = list(pa.parquet.read_schema(path).names)
    # Arrow's errors are of many classes; the reader says the same of the same file.
    except Exception:  # noqa: BLE001
        columns = []
    known = [column for column in columns if column in COLUMNS]
    return Records(str(path), columns, read_parquet(path, known or columns))


def _gather(rows: Iterator[Sequence[str | None]], columns: Sequence[str]) -> datasets.Dataset:
    schema = pa.schema([(name, pa.large_string()) for name in columns])
    chunks, chunk = [schema.empty_table()], []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            chunks.append(_arrow(chunk, schema))
            chunk = []
    chunks.append(_arrow(chunk, schema))
    return datasets.Dataset(datasets.table.InMemoryTable(pa.concat_tables(chunks)))


def _arrow(rows: list[Sequence[str | None]], schema: pa.Schema) -> pa.Table:
    cells = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.Table.from_arrays([pa.array(column, pa.large_string()) for column in cells], schema=schema)


def _without_nulls(value: Any) -> Any:
    """A nested value without the nulls that a table sets for keys that only objects of other rows have."""
    if isinstance(value, dict):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    return [_without_nulls(held) for held in value] if isinstance(value, list) else value
