"""The tables of a report: what each cell shows, and what it is sorted by."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from randlora.messages import printable, short
from randlora.report.page.finding import FoundRun
from randlora.report.page.grouping import Arm, Setting, Spread
from randlora.report.table import MISSING, binary_bytes, count, milliseconds, percent


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What it shows.
        value: What a column of numbers is sorted by; None comes last.
    """

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that can be sorted.

    Attributes:
        name: Its id on the page.
        caption: What it holds.
        headings: Of each column, and whether it holds numbers.
        rows: The cells; the first of a row names it.
    """

    name: str
    caption: str
    headings: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[Cell]]


def goal_words(value: Spread | float | None, unit: str) -> str:
    """A score with its deviation over seeds."""
    if value is None:
        return MISSING
    form = percent if unit == "%" else "{:.4f}".format
    if isinstance(value, Spread):
        around = "" if value.deviation is None else f" ± {form(value.deviation)}"
        return f"{form(value.mean)}{around}"
    return form(value)


def seconds_words(seconds: float) -> str:
    """A time as one would say it.

    >>> seconds_words(200)
    '3 min 20 s'
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"


def _number(value: float | None, words: str) -> Cell:
    known = value is not None and math.isfinite(value)
    return Cell(words if known else MISSING, value if known else None)


def _score(value: Spread | float | None, unit: str) -> Cell:
    return Cell(goal_words(value, unit), value.mean if isinstance(value, Spread) else value)


def arms_table(setting: Setting, name: str) -> Table:
    """The arms of a setting at their best learning rates, the best arm first."""
    unit = f" ({setting.unit})" if setting.unit else ""
    forgetting = any(run.record.metrics.get("general_loss") is not None for run in setting.runs)
    headings = [
        ("method", False),
        ("trained numbers", True),
        ("learning rate", True),
        ("seeds", True),
        (f"before{unit}", True),
        (f"validation{unit}", True),
        (f"test{unit}", True),
        *([("general loss, change", True)] if forgetting else []),
        ("training", True),
        ("step", True),
        ("peak memory", True),
        ("adapter", True),
    ]
    rows = [_arm_row(arm, setting.unit, forgetting=forgetting) for arm in setting.arms]
    return Table(name, f"{setting.title}: {setting.goal} at the best learning rate of each method", headings, rows)


def _arm_row(arm: Arm, unit: str, *, forgetting: bool) -> list[Cell]:
    trained = arm.mean(lambda run: run.record.trainable_parameters)
    lost = arm.mean(general_change)
    time = arm.mean(lambda run: run.record.train_seconds)
    step = arm.mean(lambda run: run.record.step_seconds_median)
    memory = arm.mean(lambda run: run.record.peak_memory_bytes)
    size = arm.mean(lambda run: run.record.adapter_bytes)
    return [
        Cell(arm.label),
        _number(trained, count(trained or 0)),
        _number(arm.rate, f"{arm.rate:g}"),
        Cell(str(len(arm.chosen)), len(arm.chosen)),
        _score(arm.mean(lambda run: run.record.before), unit),
        _score(arm.goal("validation"), unit),
        _score(arm.goal("test"), unit),
        *([_number(lost, f"{lost or 0:+.3f}")] if forgetting else []),
        _number(time, seconds_words(time or 0)),
        _number(step, milliseconds(step or 0)),
        _number(memory, binary_bytes(memory or 0)),
        _number(size, binary_bytes(size or 0)),
    ]


def general_change(run: FoundRun) -> float | None:
    """How much worse the run's model has become on a text that its task does not hold."""
    before, after = (run.record.metrics.get(name) for name in ("general_loss_before", "general_loss"))
    return None if before is None or after is None else after - before


def runs_table(settings: Sequence[Setting]) -> Table:
    """Every run with what it scored."""
    headings = [
        ("run", False),
        ("method", False),
        ("task and data", False),
        ("learning rate", True),
        ("seed", True),
        ("before", True),
        ("validation", True),
        ("test", True),
        ("training", True),
        ("started", False),
    ]
    rows = []
    for setting in settings:
        for arm in setting.arms:
            for run in sorted(arm.runs, key=lambda run: run.name):
                record = run.record
                scores = (record.before, *(record.metrics.get(f"{s}_{record.goal}") for s in ("validation", "test")))
                rows.append(
                    [
                        Cell(short(run.name)),
                        Cell(arm.label),
                        Cell(setting.title),
                        _number(run.rate, f"{run.rate:g}"),
                        Cell(str(record.seed), record.seed),
                        *(_score(score, record.unit) for score in scores),
                        _number(record.train_seconds, seconds_words(record.train_seconds)),
                        Cell(printable(record.started[:16].replace("T", " "))),
                    ]
                )
    return Table("all-runs", f"All runs ({len(rows)})", headings, rows)


def machines_table(runs: Sequence[FoundRun]) -> Table:
    """On what hardware and with which versions the runs were made."""
    made: Counter[tuple[str, ...]] = Counter()
    for run in runs:
        hardware, versions = run.record.hardware, run.record.versions
        words = [str(hardware.get(key, MISSING)) for key in ("device", "cores", "precision")]
        packages = ", ".join(f"{name} {version}" for name, version in versions.items())
        key = (*words, packages, (run.record.commit or MISSING)[:12])
        made[key] += 1
    headings = [(name, False) for name in ("device", "cores", "precision", "versions", "commit")] + [("runs", True)]
    rows = [[*(Cell(printable(word)) for word in key), Cell(str(runs), runs)] for key, runs in made.items()]
    return Table("machines", "Hardware and versions", headings, rows)
