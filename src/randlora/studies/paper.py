"""The paper's figures (arXiv 2502.00987v2), to stand beside a study's."""

import csv
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files

from randlora.errors import ConfigError
from randlora.messages import closest
from randlora.studies.cells import column_of, rows_of
from randlora.studies.scores import columns_of
from randlora.studies.suite import Paper, Suite

FILE_NAME = "paper.csv"
"""table, backbone, setting, method, column, value: Tables 2 to 6, 10, 11 and 15, averages of 12 to 14, memory of
Figures 2 and 3."""

CLOSE = 0.03
"""How far a count may be from the paper's, beside what rounding hides."""

_Key = tuple[str, str, str, str, str]


@lru_cache(maxsize=1)
def figures() -> dict[_Key, str]:
    """(table, backbone, setting, method, column) -> the figure as the paper prints it."""
    text = files("randlora.studies").joinpath(FILE_NAME).read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {(row["table"], row["backbone"], row["setting"], row["method"], row["column"]): row["value"] for row in rows}


def paper_figure(suite: Suite, row: str, task: str, shots: str | None) -> tuple[Paper, str] | None:
    """The paper's figure for a cell, and where it stands; None where the suite names none.

    Args:
        suite: The suite.
        row: A row of its table.
        task: A task of its, or a score.
        shots: Shots of its, or None; of a score the column of its runs.
    """
    for paper in suite.paper:
        found = _figure(paper, row, paper.columns.get(task), shots)
        if found is not None:
            return paper, found
    return None


def paper_average(suite: Suite, row: str, shots: str | None) -> tuple[Paper, str] | None:
    """The paper's average over the suite's tasks, and where it stands; None where the suite names none.

    Args:
        suite: The suite.
        row: A row of its table.
        shots: Shots of its, or None.
    """
    for paper in suite.paper:
        found = _figure(paper, row, paper.average, shots)
        if found is not None:
            return paper, found
    return None


def _figure(paper: Paper, row: str, column: str | None, shots: str | None) -> str | None:
    setting = paper.setting if shots is None else paper.settings.get(shots)
    method = paper.methods.get(row)
    if not (setting and method and column):
        return None
    return figures().get((paper.table, paper.backbone, setting, method, column))


def paper_trained(suite: Suite, row: str) -> str | None:
    """The paper's count of a row's trained numbers, as it prints it: `0.7M`, or `1.18 %` of the model's."""
    for paper in suite.paper:
        if paper.trained is None or row not in paper.methods:
            continue
        for setting in (paper.setting, *paper.settings.values()):
            key = (paper.table, paper.backbone, setting or "", paper.methods[row], paper.trained)
            if key in figures():
                return f"{figures()[key]} %" if "percent" in paper.trained else figures()[key]
    return None


def paper_costs(suite: Suite, row: str) -> tuple[str, dict[str, str]] | None:
    """The row in percent of which the paper prints costs, and those of a row: "time" and "memory".

    Args:
        suite: The suite.
        row: A row of its table.
    """
    for paper in suite.paper:
        if paper.costs_of is not None:
            kinds = {"time": "training_time", "memory": "memory"}
            place = paper.table, paper.backbone, paper.setting or "", paper.methods.get(row, "")
            printed = {kind: figures().get((*place, column)) for kind, column in kinds.items()}
            return paper.costs_of, {kind: figure for kind, figure in printed.items() if figure is not None}
    return None


def ratio_to_paper(printed: str, trained: int, model: int) -> tuple[float, bool]:
    """How many numbers we train by the paper's figure, and whether that is the same within 3 %.

    Args:
        printed: From `paper_trained`.
        trained: Trained numbers.
        model: Numbers of the model beside them.

    Returns:
        Ours / the paper's, and whether ours is within 3 % of a number that the paper would have printed so.

    Example:
        >>> ratio_to_paper("0.7M", 700_000, 125_000_000)
        (1.0, True)
    """
    number = printed.removesuffix(" %").removesuffix("M")
    ours = trained / 1e6 if printed.endswith("M") else 100 * trained / (model + trained)
    figure, half = float(number), 0.5 * 10 ** -len(number.partition(".")[2])
    return ours / figure, abs(ours - figure) <= CLOSE * figure + half


def check_paper(suite: Suite, rows: list[str]) -> None:
    """Check that every name in a suite's `paper` is one of the paper's or of the suite's.

    Args:
        suite: The suite.
        rows: The rows of its table.

    Raises:
        ConfigError: One is not.
    """
    for number, paper in enumerate(suite.paper):
        where = f"paper.{number}"
        here = _known(where, "table", paper.table, {key[0] for key in figures()}, [])
        here = _known(where, "backbone", paper.backbone, {key[1] for key in here}, here)
        settings = [paper.setting] if paper.setting is not None else []
        tasks, shots = places(suite)
        if bool(shots) == bool(settings):
            expected = f"settings, by {', '.join(shots)}" if shots else "a setting, as the suite has no shots"
            raise ConfigError(where, expected=expected, got="setting" if settings else "none")
        for name in [*settings, *paper.settings.values()]:
            _known(where, "setting", name, {key[2] for key in here}, here)
        for kind, names, known in (
            ("methods", paper.methods, rows),
            ("columns", paper.columns, tasks),
            ("settings", paper.settings, shots),
        ):
            for own in names:
                if own not in known:
                    raise ConfigError(f"{where}.{kind}", expected=f"one of {', '.join(known)}", got=repr(own))
        if paper.costs_of is not None and paper.costs_of not in rows:
            raise ConfigError(f"{where}.costs_of", expected=f"one of {', '.join(rows)}", got=repr(paper.costs_of))
        for name in paper.methods.values():
            _known(where, "method", name, {key[3] for key in here}, here)
        for name in filter(None, [*paper.columns.values(), paper.average, paper.trained]):
            _known(where, "column", name, {key[4] for key in here}, here)


def places(suite: Suite) -> tuple[list[str], list[str]]:
    """What the columns of a suite's table are named by: tasks and shots, or scores and the columns of their runs."""
    if suite.score is None:
        return list(suite.tasks), list(suite.shots)
    columns = [column_of(task, shots) for task in suite.tasks for shots in suite.shots or [None]]
    return list(columns_of(suite.score)), columns


def left_of_paper(suite: Suite, written: Suite) -> list[Paper]:
    """What still holds of a suite's `paper` when words of the command line have changed its tasks, shots or methods.

    Args:
        suite: The suite.
        written: As its file has it, with the same `paper`.
    """
    found = []
    rows = rows_of(suite)
    (tasks, shots), (all_tasks, _) = places(suite), places(written)
    for paper in suite.paper:
        if bool(shots) != bool(paper.settings):
            continue
        found.append(
            replace(
                paper,
                methods={row: name for row, name in paper.methods.items() if row in rows},
                columns={task: name for task, name in paper.columns.items() if task in tasks},
                settings={own: name for own, name in paper.settings.items() if own in shots},
                average=paper.average if set(tasks) == set(all_tasks) else None,
                costs_of=paper.costs_of if paper.costs_of in rows else None,
            )
        )
    return found


_PLACES = ("table", "backbone", "setting", "method", "column")


def _known(where: str, what: str, name: str, names: set[str], here: list[_Key]) -> list[_Key]:
    """The paper's figures with a name in its place, of those looked at so far."""
    if name not in names:
        near = closest(name, names)
        hint = f"did you mean {near}?" if near else f"known: {', '.join(sorted(names))}"
        raise ConfigError(f"{where}: {what}", expected="a name in paper.csv", got=repr(name), hint=hint)
    return [key for key in here or figures() if key[_PLACES.index(what)] == name]
