"""Runs that can be compared, and runs that are one arm of a comparison: the same but for seed and learning rate."""

import itertools
import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from randlora.messages import short
from randlora.report.page.content import of_one_content
from randlora.report.page.finding import LARGEST, Findings, FoundRun
from randlora.report.page.labels import data_name, distinguished, method_name
from randlora.report.page.studies import StudyCell
from randlora.training.run.folder import as_dict

IN_LEGEND = 12
"""Arms with a colour of their own and a line in the legend; those behind them are grey."""
_OF_ONE_RUN = {"output", "seed", "fingerprint", "report_to", "push_to_hub", "trust_remote_code"}
"""Keys of a config in which runs of one arm may differ."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds.

    Attributes:
        mean: The mean.
        deviation: The standard deviation; None with one seed.
        count: Number of seeds.
    """

    mean: float
    deviation: float | None
    count: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and deviation of the values that are numbers; None without any."""
    known = [value for value in values if value is not None and abs(value) < LARGEST]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


@dataclass
class Arm:
    """One method with one budget: runs that differ in seed and learning rate alone.

    Attributes:
        label: Its name on the page.
        runs: All of its runs.
        split: The split that the learning rate is chosen on: "validation", or "test" where a run has no other.
        higher: Whether more of the goal is better.
        diverged: Learning rates at which a search saw runs diverge.
        place: Which colour it has: one of a name has the same throughout a page, where there are enough.
    """

    label: str
    runs: list[FoundRun]
    split: str
    higher: bool
    diverged: list[float] = field(default_factory=list)
    place: int = 0

    @property
    def rates(self) -> dict[float, Spread]:
        """Learning rate -> the goal on `split`, over the seeds that all rates have.

        A search tries every rate with one seed and the best with more: these others must not count against it.
        """
        seeds = [{run.record.seed for run in self.runs if run.rate == rate} for rate in self._tried]
        shared = set.intersection(*seeds) or set.union(*seeds)
        found = {
            rate: self._spread([run for run in self._at(rate) if run.record.seed in shared], self.split)
            for rate in self._tried
        }
        return {rate: value for rate, value in found.items() if value is not None}

    @property
    def rate(self) -> float:
        """Of the runs that are shown: the best learning rate of those scored on the test split, where there are any.

        A search scores the test split at the rate that it took alone, which may be lower than the best by a hair.
        """
        scored = {run.rate for run in self.runs if f"test_{run.record.goal}" in run.record.metrics}
        return self._best({rate: value for rate, value in self.rates.items() if rate in scored} or self.rates)

    @property
    def best_rate(self) -> float:
        """The best of all learning rates."""
        return self._best(self.rates)

    def _best(self, rates: dict[float, Spread]) -> float:
        """Of equals the one with most seeds; where none has a score, the first."""
        if not rates:
            return self.runs[0].rate
        sign = 1 if self.higher else -1
        return max(rates, key=lambda rate: (sign * rates[rate].mean, len(self._at(rate))))

    @property
    def chosen(self) -> list[FoundRun]:
        """The runs at `rate`, one for each seed (of repeated runs the latest)."""
        return self._at(self.rate)

    @property
    def _tried(self) -> list[float]:
        return sorted({run.rate for run in self.runs})

    def _at(self, rate: float) -> list[FoundRun]:
        by_seed = {run.record.seed: run for run in sorted(self.runs, key=_started) if run.rate == rate}
        return [by_seed[seed] for seed in sorted(by_seed)]

    def goal(self, split: str) -> Spread | None:
        """The goal on a split at the best learning rate, over the seeds."""
        return self._spread(self.chosen, split)

    @staticmethod
    def _spread(runs: Sequence[FoundRun], split: str) -> Spread | None:
        return spread([run.record.metrics.get(f"{split}_{run.record.goal}") for run in runs])

    def mean(self, value: Callable[[FoundRun], float | None]) -> float | None:
        """The mean of a number over the chosen runs."""
        found = spread([value(run) for run in self.chosen])
        return None if found is None else found.mean


@dataclass(frozen=True)
class Setting:
    """Arms that learn the same task from the same data and model.

    Attributes:
        title: Its name on the page.
        arms: The best first.
        goal: Name of the metric that is aimed at.
        unit: What stands after its value.
        higher: Whether more of it is better.
    """

    title: str
    arms: list[Arm]
    goal: str
    unit: str
    higher: bool

    @property
    def split(self) -> str:
        """The split that arms are shown by: "test" where it was scored for all of them, else what was chosen on."""
        return "test" if all(arm.goal("test") for arm in self.arms) else self.arms[0].split

    def score(self, arm: Arm) -> Spread | None:
        """An arm's goal on that split."""
        return arm.goal(self.split)

    @property
    def example(self) -> FoundRun:
        """A run, for what all have in common."""
        return self.arms[0].runs[0]

    @property
    def runs(self) -> list[FoundRun]:
        """All runs, arm by arm."""
        return [run for arm in self.arms for run in arm.runs]


def group(found: Findings) -> list[Setting]:
    """The runs as settings and arms, in the order of their titles, in which 4 comes before 16."""
    keyed: dict[str, list[FoundRun]] = {}
    for run in found.runs:
        config = as_dict(run.config)
        key = [run.record.goal, *(config[part] for part in ("task", "model", "data", "start_from"))]
        keyed.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(run)
    groups, telling = [], []
    for runs, content in itertools.chain.from_iterable(map(of_one_content, keyed.values())):
        config = as_dict(runs[0].config)
        groups.append(runs)
        telling.append({"data": config["data"], "model": config["model"], "content": content})
    titles = distinguished([_title(runs) for runs in groups], telling)
    settings = [_setting(title, runs, found.diverged) for title, runs in zip(titles, groups, strict=True)]
    labels = sorted({arm.label for setting in settings for arm in setting.arms})
    for setting in settings:
        known = labels if len(labels) <= IN_LEGEND else [arm.label for arm in setting.arms]
        for arm in setting.arms:
            arm.place = known.index(arm.label)
    return sorted(settings, key=lambda setting: _by_numbers(setting.title))


def _by_numbers(title: str) -> list[tuple[float, str]]:
    """A key that sorts 4 shots before 16."""
    return [(float(part), "") if part.isdecimal() else (math.inf, part) for part in re.split(r"([0-9]+)", title)]


def called(runs: Sequence[FoundRun], own: Callable[[StudyCell], str], otherwise: str) -> str:
    """What a study calls its runs where all are of one, else a name from their config."""
    names = {None if run.cell is None else own(run.cell) for run in runs}
    name = names.pop() if len(names) == 1 else None
    return otherwise if name is None else short(name)


def _title(runs: Sequence[FoundRun]) -> str:
    config = runs[0].config
    return called(runs, lambda cell: cell.column, f"{config.task}, {data_name(config.data)}")


def _label(runs: Sequence[FoundRun]) -> str:
    return called(runs, lambda cell: cell.row, method_name(runs[0].config.method))


def _setting(title: str, runs: Sequence[FoundRun], diverged: dict[Path, list[float]]) -> Setting:
    record = runs[0].record
    higher = not record.goal.endswith(("loss", "perplexity"))
    keyed: dict[str, list[FoundRun]] = {}
    for run in runs:
        keyed.setdefault(json.dumps(_of_the_arm(run), sort_keys=True, default=str), []).append(run)
    groups = list(keyed.values())
    labels = distinguished([_label(part) for part in groups], [_of_the_arm(part[0]) for part in groups])
    arms = []
    for label, part in zip(labels, groups, strict=True):
        # A run of a search leaves the test split alone, so validation counts as soon as one run has it.
        split = "validation" if any(run.record.split == "validation" for run in part) else "test"
        folders = {run.path.resolve().parent for run in part}
        lost = {rate for folder in folders for rate in diverged.get(folder, [])}
        lost |= {rate for run in part if run.cell is not None for rate in run.cell.diverged}
        arms.append(Arm(label, part, split, higher, sorted(lost)))

    def place(arm: Arm) -> tuple[bool, float]:
        judged = arm.goal(arm.split)
        value = 0.0 if judged is None else judged.mean
        return judged is None, -value if higher else value

    return Setting(title, sorted(arms, key=place), short(record.goal), short(record.unit), higher)


def _of_the_arm(run: FoundRun) -> dict[str, Any]:
    config = {key: value for key, value in as_dict(run.config).items() if key not in _OF_ONE_RUN}
    config["method"] = {key: value for key, value in config["method"].items() if key != "seed"}
    config["optimization"] = {key: value for key, value in config["optimization"].items() if key != "learning_rate"}
    return config


def _started(run: FoundRun) -> str:
    return run.record.started
