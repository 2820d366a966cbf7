"""Mean ranks over several studies, of methods that train as many numbers."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from randlora.errors import ConfigError
from randlora.messages import closest
from randlora.result import Result
from randlora.studies.ranks import column_ranks, mean_ranks

EQUAL = 0.1
"""How far trained numbers may be apart that count as equal: RandLoRA's come in steps of a whole basis."""

_NOT_COMPARED = ("r", "budgets", "learning_rates", "target_modules", "exclude_modules")
"""Keys of a method's section that follow the model, and may differ between studies of one method."""

_KEYS = ("row", "method", "column", "shown", "trained", "higher", "unit")
"""What is read of a cell."""

_Cell = dict[str, Any]
_Tables = Mapping[str, Mapping[str, Any]]
_Ranks = Mapping[str, Mapping[str, float]]

_Column = dict[str, _Cell]
"""Method -> its cell, of one column at about equal numbers."""

_Columns = dict[tuple[str, str, int], _Column]
"""Study, column and trained numbers -> what can be compared there."""


def read_table(path: Path) -> Mapping[str, Any]:
    """A study's table, as `randlora study table --format json` wrote it.

    Raises:
        ConfigError: It is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lacking = [key for key in _KEYS for cell in found["cells"] if key not in cell]
        if found["suite"] and not lacking:
            return dict(found)
        got = f"one without {lacking[0]}, as of an older version"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        got = type(error).__name__
    expected = "a study's table (`randlora study table SUITE --format json`)"
    raise ConfigError(str(path), expected=expected, got=got)


def ranks_across(tables: _Tables, methods: Sequence[Sequence[str]] = ()) -> Result:
    """Mean ranks of methods over the columns of several studies, each of which counts once.

    Args:
        tables: What a study is called here -> the `data` of its table.
        methods: Names of each method that is ranked, the first for the reader: then columns that one of these lacks
            are left out. Empty means all that have a figure in every column in which methods can be compared.

    Returns:
        Rows have "method", "rank", see `mean_ranks`, and "first", in how many columns it is first. `more` has for each
        column "column", what it is called, "trained", the fewest and the most numbers, and in "methods" by method its
        "row", "trained", "shown", "unit" and "rank". `data` has both.

    Raises:
        ConfigError: A method is unknown, or fewer than two can be ranked.
    """
    names = {known: own[0] for own in methods for known in own}
    known = list(dict.fromkeys(cell["method"] for table in tables.values() for cell in table["cells"]))
    for name in names:
        if name not in known:
            near = closest(name, known)
            hint = f"did you mean {near}?" if near else ""
            raise ConfigError("--methods", expected=f"some of {', '.join(known)}", got=repr(name), hint=hint)
    columns: _Columns = {}
    for study, table in tables.items():
        columns |= _columns(study, table["cells"], names)
    called = [names.get(name, name) for name in known]
    counts = {name: sum(name in column for column in columns.values()) for name in called}
    chosen = [own[0] for own in methods] or [name for name, count in counts.items() if 0 < count == len(columns)]
    shared = _labelled({place: column for place, column in columns.items() if all(name in column for name in chosen)})
    if len(chosen) < 2 or not shared:
        expected = "two methods or more that share columns at equal trained numbers"
        hint = "--methods says which; columns in which they can be compared: "
        hint += ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda own: -own[1]))
        got = ", ".join(chosen) or "none that have one in every column"
        raise ConfigError("--methods", expected=expected, got=got, hint=hint)
    scores = {name: {label: column[name]["shown"] for label, column in shared.items()} for name in chosen}
    higher = {label: column[chosen[0]]["higher"] for label, column in shared.items()}
    by_column = column_ranks(scores, higher)
    rows = [
        {"method": name, "rank": rank, "first": sum(place == 1 for place in by_column[name].values())}
        for name, rank in sorted(mean_ranks(scores, higher).items(), key=lambda entry: entry[1]["rank"])
    ]
    lines = [_line(label, column, chosen, by_column) for label, column in shared.items()]
    counted = "1 column" if len(shared) == 1 else f"{len(shared)} columns, each of which counts once"
    summary = [f"over {counted}; in each, methods that train as many numbers, within {EQUAL:.0%}"]
    if methods:
        summary += _lacking(columns, chosen)
    elif others := [f"{name} {len(columns) - count}" for name, count in counts.items() if name not in chosen]:
        summary.append(f"left out, with how many of the columns each lacks: {', '.join(others)}")
    every = dict.fromkeys((study, cell["column"]) for study, table in tables.items() for cell in table["cells"])
    alone = [f"{study}: {name}" for study, name in every if (study, name) not in {place[:2] for place in columns}]
    summary += [f"left out, as no two methods have figures at equal numbers: {'; '.join(alone)}"] if alone else []
    summary += _different(tables, chosen, names)
    data = {"studies": list(tables), "ranks": rows, "columns": lines}
    return Result("ranks", f"Mean ranks over {', '.join(tables)}", summary, rows, data, {"columns": lines})


def _columns(study: str, cells: Sequence[_Cell], names: Mapping[str, str]) -> _Columns:
    """The columns of a study, once for every count of numbers that several methods train."""
    return {
        (study, name, count): group
        for name in dict.fromkeys(cell["column"] for cell in cells)
        for count, group in _equal([cell for cell in cells if cell["column"] == name], names).items()
    }


def _labelled(columns: _Columns) -> dict[str, _Column]:
    """Columns by what they are called: with the count where two differ in it alone."""
    places = Counter(place[:2] for place in columns)
    return {
        f"{study}: {name}" if places[study, name] == 1 else f"{study}: {name}, {count:,} trained": column
        for (study, name, count), column in columns.items()
    }


def _equal(cells: Sequence[_Cell], names: Mapping[str, str]) -> dict[int, _Column]:
    """Cells of one column by about equal numbers: as many of them as can be together first, then of the rest."""
    found = {}
    cells = [cell for cell in cells if cell["shown"] is not None and cell["trained"] is not None]
    while cells:
        count = max((cell["trained"] for cell in cells), key=lambda own: sum(_is_close(cell, own) for cell in cells))
        group = sorted(cells, key=lambda cell: abs(cell["trained"] - count))
        methods: _Column = {}
        for cell in filter(lambda cell: _is_close(cell, count), group):
            known = methods.setdefault(names.get(cell["method"], cell["method"]), cell)  # of two budgets the nearer
            if known["method"] != cell["method"]:
                got = f"{known['method']} and {cell['method']} in {cell['column']}"
                raise ConfigError("--methods", expected="names of which a column has one", got=got)
        if len(methods) > 1:
            found[count] = methods
        cells = [cell for cell in cells if not _is_close(cell, count)]
    return dict(sorted(found.items()))


def _is_close(cell: _Cell, count: int) -> bool:
    return bool(abs(cell["trained"] - count) <= EQUAL * count)


def _line(label: str, column: _Column, chosen: Sequence[str], ranks: _Ranks) -> dict[str, Any]:
    counts = [column[name]["trained"] for name in chosen]
    cells = {name: {key: column[name][key] for key in ("row", "trained", "shown", "unit")} for name in chosen}
    return {
        "column": label,
        "trained": [min(counts), max(counts)],
        "methods": {name: {**cell, "rank": ranks[name][label]} for name, cell in cells.items()},
    }


def _lacking(columns: _Columns, chosen: Sequence[str]) -> list[str]:
    """The columns in which one of the methods that were asked for is not, a line for each set of these."""
    found: dict[str, list[str]] = {}
    for (study, name, _), column in columns.items():
        missing = [method for method in chosen if method not in column]
        if 0 < len(missing) < len(chosen):
            found.setdefault(", ".join(missing), []).append(f"{study}: {name}")
    return [f"left out, without {names}: {'; '.join(dict.fromkeys(labels))}" for names, labels in found.items()]


def _different(tables: _Tables, chosen: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Methods of one name that are not written alike, a line each."""
    lines = []
    for name in chosen:
        found: dict[str, list[str]] = {}
        for study, table in tables.items():
            for own, section in table.get("methods", {}).items():
                if names.get(own, own) == name:
                    kept = {key: value for key, value in section.items() if key not in _NOT_COMPARED}
                    found.setdefault(json.dumps(kept, sort_keys=True, ensure_ascii=False), []).append(study)
        if len(found) > 1:
            lines.append(f"{name} is " + "; ".join(f"{text} in {', '.join(own)}" for text, own in found.items()))
    return lines
