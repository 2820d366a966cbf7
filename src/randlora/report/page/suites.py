"""What `randlora evaluate` wrote of suites into runs' folders: a row for each run, a column for each score."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from randlora.messages import printable, short
from randlora.report.page.finding import LARGEST, SUITE_FILES, FoundRun
from randlora.report.page.grouping import Setting
from randlora.report.page.tables import Cell, Table
from randlora.report.table import MISSING, count, percent
from randlora.training.language import e2e, harness

_ANSWERS, _LONGEST = 3, 300
"""Of a run's answers as many are shown, each as long as that at most."""
_DAMAGE = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
"""What reading a file raises that is not what an evaluation writes."""

Scores = dict[str, Cell]
"""Heading of a column -> what it shows for one run."""


@dataclass(frozen=True)
class _Suite:
    """A file that an evaluation writes.

    Attributes:
        title: What its table holds.
        read: The scores of its content, and under which conditions they were had.
    """

    title: str
    read: Callable[[Any], tuple[Scores, str]]


def suite_tables(settings: Sequence[Setting]) -> tuple[list[Table], list[str]]:
    """The scores of the runs on suites.

    Args:
        settings: All settings, with their runs.

    Returns:
        A table for each suite that a run was scored on, and a line for each file that is not what an evaluation writes.
    """
    tables, damaged = [], []
    for place, name in enumerate(SUITE_FILES, start=1):
        suite = _SUITES[name]
        rows: list[tuple[list[Cell], Scores, str]] = []
        for arm, run in _runs(settings):
            if name in run.suites:
                try:
                    scores, conditions = suite.read(run.suites[name])
                    rows.append(([Cell(short(run.name)), Cell(arm)], scores, conditions))
                except _DAMAGE as error:
                    file = printable(str(run.path / name))
                    damaged.append(f"{file}: not what an evaluation writes ({type(error).__name__})")
        if rows:
            tables.append(_table(f"suite-{place}", suite.title, rows))
    answers = [row for arm, run in _runs(settings) for row in _answers(arm, run)]
    if answers:
        headings = [("run", False), ("method", False), ("meaning", True), ("answer", False)]
        tables.append(Table("suite-answers", "E2E challenge: the first answers of each run", headings, answers))
    return tables, damaged


def _answers(arm: str, run: FoundRun) -> list[list[Cell]]:
    """A row for each of a run's first answers, in the order of the test data."""
    content = run.suites.get(e2e.FILE_NAME, {})
    found = content.get("answers") if isinstance(content, Mapping) else None
    texts = [text for text in found if isinstance(text, str)][:_ANSWERS] if isinstance(found, list) else []
    return [
        [Cell(short(run.name)), Cell(arm), Cell(str(number), number), Cell(printable(text[:_LONGEST]))]
        for number, text in enumerate(texts, start=1)
    ]


def _runs(settings: Sequence[Setting]) -> Iterator[tuple[str, FoundRun]]:
    for setting in settings:
        for arm in setting.arms:
            for run in sorted(arm.runs, key=lambda run: run.name):
                yield arm.label, run


def _table(name: str, title: str, rows: Sequence[tuple[list[Cell], Scores, str]]) -> Table:
    headings = list(dict.fromkeys(heading for _, scores, _ in rows for heading in scores))
    columns = [("run", False), ("method", False), *((heading, True) for heading in headings), ("conditions", False)]
    cells = [
        [*first, *(scores.get(heading, Cell(MISSING)) for heading in headings), Cell(conditions)]
        for first, scores, conditions in rows
    ]
    return Table(name, title, columns, cells)


def _score(value: Any, form: Callable[[float], str], error: Any = None) -> Cell:
    """A score with its standard error; a missing one for what is no number that can be."""
    if value is None or not abs(float(value)) < LARGEST:
        return Cell(MISSING)
    around = "" if error is None else f" ± {form(float(error))}"
    return Cell(f"{form(float(value))}{around}", float(value))


def _commonsense(content: Mapping[str, Any]) -> tuple[Scores, str]:
    scores: Scores = {}
    for part, words in (("generated", ""), ("likelihood", ", likelihood")):
        for task in content["tasks"]:
            scores[f"{printable(str(task['task']))}{words}"] = _score(task[part], percent)
        scores[f"mean{words}"] = _score(content["mean"][part], percent)
    tasks = content["tasks"]
    asked = sum(int(task["examples"]) for task in tasks)
    silent = sum(float(task["unanswered"]) * int(task["examples"]) for task in tasks) / max(asked, 1)
    about = [f"{len(tasks)} tasks, {count(asked)} questions", f"no answer to {percent(silent)} %"]
    return scores, _conditions(about, content)


def _e2e(content: Mapping[str, Any]) -> tuple[Scores, str]:
    # Figures of two implementations are not the same figure.
    scores = {
        printable(f"{score['metric']} ({score['implementation']})"): _score(score["value"], "{:.2f}".format)
        for score in content["scores"]
        if score["value"] is not None
    }
    words = [f"{count(int(content['meanings']))} meanings", f"{int(content['num_beams'])} beams"]
    return scores, _conditions(words, content)


def _harness(content: Mapping[str, Any]) -> tuple[Scores, str]:
    scores: Scores = {}
    tasks: dict[str, list[str]] = {}
    for task, found in content.items():
        for score in found["scores"]:
            shots = "" if score["shots"] is None else f", {int(score['shots'])} shots"
            heading = printable(f"{task} {score['metric']}{shots}")
            scores[heading] = _score(score["value"], "{:.4f}".format, score["error"])
        tasks.setdefault(_conditions([f"lm_eval {found['lm_eval']}"], found), []).append(printable(task))
    common, *others = tasks
    return scores, "; ".join([common, *(f"{', '.join(tasks[words])}: {words}" for words in others)])


def _conditions(words: Sequence[str], content: Mapping[str, Any]) -> str:
    limit = content["limit"]
    cut = [] if limit is None else [f"the first {count(int(limit))} of each"]
    return printable(", ".join([*words, *cut, f"batches of {int(content['batch_size'])}"]))


_SUITES = {
    "commonsense-fixed.json": _Suite("Commonsense tasks: right answers in words, and the likeliest (%)", _commonsense),
    "commonsense-faithful.json": _Suite("The same with the reference's faults (--protocol faithful)", _commonsense),
    e2e.FILE_NAME: _Suite("E2E challenge", _e2e),
    harness.FILE_NAME: _Suite("Tasks of lm-evaluation-harness, with standard errors", _harness),
}
"""File in a run's folder -> what is in it."""
