"""A table of token ids that grows by batches, in Arrow's compact form."""

import datasets
import pyarrow as pa

_TOKENS = pa.list_(pa.int32())


class TokenTable:
    """Columns of lists of token ids.

    Args:
        columns: Their names.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._schema = pa.schema([(column, _TOKENS) for column in columns])
        self._chunks = [self._schema.empty_table()]

    def add(self, *columns: list[list[int]]) -> None:
        """Append rows, given column by column."""
        arrays = [pa.array(column, _TOKENS) for column in columns]
        self._chunks.append(pa.Table.from_arrays(arrays, schema=self._schema))

    def table(self) -> datasets.Dataset:
        """The rows so far."""
        return datasets.Dataset(datasets.table.InMemoryTable(pa.concat_tables(self._chunks)))
