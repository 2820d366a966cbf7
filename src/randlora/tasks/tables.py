"""Tables from files, read here: every string as it was written, and no cache that may hold another file's rows."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import datasets
import pyarrow as pa

from randlora.errors import DataError
from randlora.tasks.parquet import read_parquet
from randlora.tasks.text_files import Cells, csv_rows, json_rows, refuse_compressed

SEPARATED = (".csv", ".tsv")
SUFFIXES = (*SEPARATED, ".json", ".jsonl", ".parquet")
"""File endings that can be read, in any case."""

CHUNK = 10_000
"""Rows that are Python strings at one time; the others lie in Arrow's compact form."""


def read_table(path: Path, columns: Sequence[str], names: Sequence[str] | None = None) -> datasets.Dataset:
    """Read columns of a data file.

    Args:
        path: A regular file with one of `SUFFIXES`.
        columns: Names of the columns wanted.
        names: Names of all columns of a CSV or TSV file without a line of them.

    Returns:
        A table of these columns. Those of CSV and JSON are strings as written, None where JSON has null, NaN or no such
        key; those of parquet have the types of their schema.

    Raises:
        DataError: The file is damaged, compressed, not in UTF-8, or lacks a column; the message names the line.
    """
    try:
        refuse_compressed(path)
        kind = path.suffix.lower()
        if kind == ".parquet":
            return read_parquet(path, columns)
        rows = csv_rows(path, columns, names) if kind in SEPARATED else json_rows(path, columns)
        return _gather(rows, columns)
    except OSError as error:
        raise DataError(str(path), expected="a file that can be read", got=error.strerror or str(error)) from error


def _gather(rows: Iterable[Cells], columns: Sequence[str]) -> datasets.Dataset:
    schema = pa.schema([(name, pa.large_string()) for name in columns])
    rows, chunks = iter(rows), [schema.empty_table()]
    while chunk := list(islice(rows, CHUNK)):
        arrays = [pa.array(cells, pa.large_string()) for cells in zip(*chunk, strict=True)]
        chunks.append(pa.Table.from_arrays(arrays, schema=schema))
    return datasets.Dataset(datasets.table.InMemoryTable(pa.concat_tables(chunks)))
