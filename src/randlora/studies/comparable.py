"""Cells of a study's table that can be compared: of one column, at about equal trained numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from randlora.errors import ConfigError

EQUAL = 0.1
"""How far trained numbers may be apart that count as equal: RandLoRA's come in steps of a whole basis."""

Cell = dict[str, Any]
Column = dict[str, Cell]
"""Method -> its cell, of one column at about equal numbers."""

Columns = dict[tuple[str, str, int], Column]
"""Study, column and trained numbers -> what can be compared there."""


def columns_of(study: str, cells: Sequence[Cell], names: Mapping[str, str]) -> Columns:
    """The columns of a study, once for every count of numbers that several methods train.

    Args:
        study: What it is called.
        cells: Of its table.
        names: Name of a method in the study -> its name here, where that is another one.

    Raises:
        ConfigError: Two methods of one name stand in one column.
    """
    return {
        (study, name, count): group
        for name in dict.fromkeys(cell["column"] for cell in cells)
        for count, group in _equal([cell for cell in cells if cell["column"] == name], names).items()
    }


def _equal(cells: Sequence[Cell], names: Mapping[str, str]) -> dict[int, Column]:
    """Cells of one column by about equal numbers: as many of them as can be together first, then of the rest."""
    found = {}
    cells = [cell for cell in cells if cell["shown"] is not None and cell["trained"] is not None]
    while cells:
        count = max((cell["trained"] for cell in cells), key=lambda own: sum(_is_close(cell, own) for cell in cells))
        group = sorted(cells, key=lambda cell: abs(cell["trained"] - count))
        methods: Column = {}
        for cell in filter(lambda cell: _is_close(cell, count), group):
            known = methods.setdefault(names.get(cell["method"], cell["method"]), cell)  # of two budgets the nearer
            if known["method"] != cell["method"]:
                got = f"{known['method']} and {cell['method']} in {cell['column']}"
                raise ConfigError("--methods", expected="names of which a column has one", got=got)
        if len(methods) > 1:
            found[count] = methods
        cells = [cell for cell in cells if not _is_close(cell, count)]
    return dict(sorted(found.items()))


def _is_close(cell: Cell, count: int) -> bool:
    return bool(abs(cell["trained"] - count) <= EQUAL * count)
