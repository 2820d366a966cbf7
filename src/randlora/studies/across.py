"""Mean ranks over several studies, of methods that train as many numbers."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from randlora.errors import ConfigError
from randlora.messages import closest
from randlora.result import Result
from randlora.studies.comparable import EQUAL, Column, Columns, columns_of
from randlora.studies.ranks import column_ranks, mean_ranks

_NOT_COMPARED = ("r", "budgets", "learning_rates", "target_modules", "exclude_modules")
"""Keys of a method's section that follow the model, and may differ between studies of one method."""

_KEYS = ("row", "method", "column", "shown", "trained", "higher", "unit")
"""What is read of a cell."""

_Tables = Mapping[str, Mapping[str, Any]]
_Ranks = Mapping[str, Mapping[str, float]]


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
        ConfigError: A method is unknown or there twice, or fewer than two can be ranked.
    """
    names = {known: own[0] for own in methods for known in own}
    known = list(dict.fromkeys(cell["method"] for table in tables.values() for cell in table["cells"]))
    _check_names([name for own in methods for name in own], known)
    columns: Columns = {}
    for study, table in tables.items():
        columns |= columns_of(study, table["cells"], names)
    counts = {
        name: sum(name in column for column in columns.values()) for name in (names.get(own, own) for own in known)
    }
    chosen = [own[0] for own in methods] or [name for name, count in counts.items() if 0 < count == len(columns)]
    shared = _labelled({place: column for place, column in columns.items() if all(name in column for name in chosen)})
    if len(chosen) < 2 or not shared:
        raise _too_few(chosen, counts)
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
    others = {name: len(columns) - count for name, count in counts.items() if name not in chosen}
    summary += _lacking(columns, chosen) if methods else _left_out(others)
    summary += _alone(tables, columns) + _different(tables, chosen, names)
    data = {"studies": list(tables), "ranks": rows, "columns": lines}
    return Result("ranks", f"Mean ranks over {', '.join(tables)}", summary, rows, data, {"columns": lines})


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    """Check that the studies have the methods that are asked for, each of which is asked for once."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError("--methods", expected="every name once", got=f"{name}, {count} times")
        if name not in known:
            near = closest(name, known)
            hint = f"did you mean {near}?" if near else ""
            raise ConfigError("--methods", expected=f"some of {', '.join(known)}", got=repr(name), hint=hint)


def _too_few(chosen: Sequence[str], counts: Mapping[str, int]) -> ConfigError:
    """What is wrong where no two methods share a column."""
    hint = "--methods says which; columns in which they can be compared: "
    hint += ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda own: -own[1]))
    expected = "two methods or more that share columns at equal trained numbers"
    return ConfigError(
        "--methods", expected=expected, got=", ".join(chosen) or "none that have one in every column", hint=hint
    )


def _labelled(columns: Columns) -> dict[str, Column]:
    """Columns by what they are called: with the count where two differ in it alone."""
    places = Counter(place[:2] for place in columns)
    return {
        f"{study}: {name}" if places[study, name] == 1 else f"{study}: {name}, {count:,} trained": column
        for (study, name, count), column in columns.items()
    }


def _line(label: str, column: Column, chosen: Sequence[str], ranks: _Ranks) -> dict[str, Any]:
    counts = [column[name]["trained"] for name in chosen]
    cells = {name: {key: column[name][key] for key in ("row", "trained", "shown", "unit")} for name in chosen}
    return {
        "column": label,
        "trained": [min(counts), max(counts)],
        "methods": {name: {**cell, "rank": ranks[name][label]} for name, cell in cells.items()},
    }


def _lacking(columns: Columns, chosen: Sequence[str]) -> list[str]:
    """The columns in which one of the methods that were asked for is not, a line for each set of these."""
    found: dict[str, list[str]] = {}
    for (study, name, _), column in columns.items():
        missing = [method for method in chosen if method not in column]
        if 0 < len(missing) < len(chosen):
            found.setdefault(", ".join(missing), []).append(f"{study}: {name}")
    return [f"left out, without {names}: {'; '.join(dict.fromkeys(labels))}" for names, labels in found.items()]


def _left_out(lacks: Mapping[str, int]) -> list[str]:
    """The methods that are not ranked, in a line; none where all are."""
    text = ", ".join(f"{name} {count}" for name, count in lacks.items())
    return [f"left out, with how many of the columns each lacks: {text}"] if text else []


def _alone(tables: _Tables, columns: Columns) -> list[str]:
    """The columns in which nothing can be compared, in a line; none where there are none."""
    every = dict.fromkeys((study, cell["column"]) for study, table in tables.items() for cell in table["cells"])
    compared = {place[:2] for place in columns}
    text = "; ".join(f"{study}: {name}" for study, name in every if (study, name) not in compared)
    return [f"left out, as no two methods have figures at equal numbers: {text}"] if text else []


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
