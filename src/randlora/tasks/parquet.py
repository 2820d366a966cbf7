"""Columns of a parquet file, unpacked to disk in small pieces and mapped from there."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet

from randlora.errors import DataError
from randlora.tasks.columns import require_columns

PIECE = 256
"""Rows unpacked into memory at one time: few, as one may be an image, or one long string repeated."""

UNPACKED_FREELY = 2**30
"""Bytes that any file may unpack to."""

LARGEST_EXPANSION = 1000
"""Bytes that a file may unpack to for each of its own, beyond that; what is larger was made to fill a disk."""


def read_parquet(path: Path, columns: Sequence[str]) -> datasets.Dataset:
    """Read columns of a parquet file; images stay encoded.

    Args:
        path: The file.
        columns: Names of the columns wanted.

    Returns:
        A table of these columns, with the features that `datasets` wrote into the file, if it did.

    Raises:
        DataError: The file is damaged, lacks a column, or unpacks to more than it may.
    """
    try:
        with pa.parquet.ParquetFile(path, memory_map=True) as file:
            require_columns(str(path), columns, file.schema_arrow.names)
            return datasets.Dataset(datasets.table.InMemoryTable(_unpack(file, path, columns)))
    except DataError:
        raise
    # Arrow's errors are of many classes, and the features in the file's metadata can be anything.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise DataError(
            str(path), expected="a readable parquet file", got=f"{type(error).__name__}: {lines[0]}"
        ) from error


def _unpack(file: pa.parquet.ParquetFile, path: Path, columns: Sequence[str]) -> pa.Table:
    found = file.schema_arrow
    schema = pa.schema([_plain(found.field(name)) for name in columns], metadata=found.metadata)
    # The mapped file goes when the table does: its name is removed at once.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        target = Path(folder) / "rows.arrow"
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in _bounded(file, path, columns, schema):
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(str(target))).read_all()


def _bounded(
    file: pa.parquet.ParquetFile, path: Path, columns: Sequence[str], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    limit = max(UNPACKED_FREELY, LARGEST_EXPANSION * path.stat().st_size)
    unpacked = 0
    for piece in file.iter_batches(batch_size=PIECE, columns=list(columns)):
        batch = piece.select(list(columns)).cast(schema)
        unpacked += batch.nbytes
        if unpacked > limit:
            raise DataError(
                str(path),
                expected=f"a file that unpacks to at most {LARGEST_EXPANSION} times its size",
                got=f"more than {limit:,} bytes from {path.stat().st_size:,}",
            )
        yield batch


def _plain(field: pa.Field) -> pa.Field:
    """A dictionary's field as its values': pieces may have different dictionaries."""
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
