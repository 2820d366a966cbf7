"""The columns that a config names, among those that a table has."""

from collections.abc import Sequence

from randlora.errors import DataError

_KEYS = "data.text_column, text_pair_column, image_column and label_column"


def require_columns(source: str, wanted: Sequence[str], found: Sequence[str]) -> None:
    """Check that each column is there, and once.

    Args:
        source: Where the table comes from, for the message.
        wanted: Names of the input and the label column.
        found: Names of the table's columns.

    Raises:
        DataError: It is not so; the message lists the columns there are.
    """
    for column in wanted:
        count = found.count(column)
        if count != 1:
            raise DataError(
                source,
                expected=f"{'one' if count else 'a'} column '{column}'",
                got=f"the columns {', '.join(found)}" if found else "none",
                hint="rename the others" if count else f"name the right ones in {_KEYS}",
            )
