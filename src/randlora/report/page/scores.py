"""What a setting's runs were scored on beside their goal, and what training did to a text that is not the task's."""

from collections.abc import Callable
from functools import partial

from randlora.messages import printable
from randlora.report.page.finding import FoundRun
from randlora.report.page.grouping import Arm, Setting, spread
from randlora.report.page.tables import Cell, Table
from randlora.report.table import MISSING, count

_BEFORE = "_before"
_OF_EXAMPLES = {
    "train_examples": "examples",
    "train_examples_cut": "examples cut",
    "train_examples_left_out": "examples left out",
}
"""Metrics that count examples -> how the table calls them."""

_Column = tuple[str, Callable[[FoundRun], float | None], Callable[[float], str]]
"""Heading, value of a run, and how it is written."""


def scores_table(setting: Setting, name: str) -> Table | None:
    """Every other score of the methods at their best learning rates; None where there is none.

    Args:
        setting: The setting.
        name: Its id on the page.
    """
    columns = [*_scores(setting), *_general(setting), *_amounts(setting)]
    if not columns:
        return None
    headings = [("method", False), *((heading, True) for heading, _, _ in columns)]
    rows = [[Cell(arm.label), *(_cell(arm, value, form) for _, value, form in columns)] for arm in setting.arms]
    return Table(name, f"{setting.title}: what else is known", headings, rows)


def tokens(run: FoundRun) -> float | None:
    """How many tokens a language model was trained on, as logged last."""
    logged = [entry["num_tokens"] for entry in run.record.history if "num_tokens" in entry]
    return logged[-1] if logged else None


def _scores(setting: Setting) -> list[_Column]:
    """The metrics of the split shown, but for the goal."""
    start, found = f"{setting.split}_", dict[str, None]()
    for arm in setting.arms:
        for run in arm.chosen:
            found |= dict.fromkeys(name for name in run.record.metrics if name.startswith(start))
    names = [name for name in found if not name.endswith(_BEFORE) and name != f"{start}{setting.goal}"]
    return [(_heading(name), partial(_metric, name), "{:,.4g}".format) for name in names]


def _general(setting: Setting) -> list[_Column]:
    names = ["general_loss_before", "general_loss"]
    known = any(run.record.metrics.get(name) is not None for run in setting.runs for name in names)
    words = ["general loss before", "general loss after"]
    columns = zip(words, names, strict=True)
    return [(heading, partial(_metric, name), "{:.3f}".format) for heading, name in columns] if known else []


def _amounts(setting: Setting) -> list[_Column]:
    found: list[_Column] = []
    if any(tokens(run) for run in setting.runs):
        found += [("tokens trained on", tokens, count), ("tokens a second", _tokens_a_second, count)]
    known = {name for run in setting.runs for name in run.record.metrics}
    return found + [(words, partial(_metric, name), count) for name, words in _OF_EXAMPLES.items() if name in known]


def _tokens_a_second(run: FoundRun) -> float | None:
    seen, seconds = tokens(run), run.record.train_seconds
    return None if seen is None or seconds <= 0 else seen / seconds


def _metric(name: str, run: FoundRun) -> float | None:
    return run.record.metrics.get(name)


def _heading(name: str) -> str:
    return printable(name.replace("_", " "))


def _cell(arm: Arm, value: Callable[[FoundRun], float | None], form: Callable[[float], str]) -> Cell:
    found = spread([value(run) for run in arm.chosen])
    if found is None:
        return Cell(MISSING)
    words = form(found.mean)
    return Cell(f"{words} ± {_like(words, found.deviation, form)}" if found.deviation else words, found.mean)


def _like(mean: str, deviation: float, form: Callable[[float], str]) -> str:
    """A deviation with as many decimals as its mean is written with."""
    decimals = mean.partition(".")[2]
    return f"{deviation:,.{len(decimals)}f}" if decimals.isdigit() else form(deviation)
