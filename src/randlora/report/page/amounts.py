"""Scores against the amount of data: settings that differ in it alone, and a curve over it for each method."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from randlora.methods import PROMPTS
from randlora.report.page.finding import FoundRun
from randlora.report.page.grouping import Arm, Setting, Spread, called, spread
from randlora.report.page.labels import data_name, distinguished, method_name
from randlora.training.run.folder import as_dict

SHOTS, SHARE = "shots", "fraction"
"""Keys of a data section that say how much of the data is trained on."""
_LENGTH = {"learning_rate", "epochs", "max_steps"}
"""What is chosen for a method or follows the amount of data: few shots are trained for more epochs."""
_PROMPTS = {method.name for method in PROMPTS}


@dataclass(frozen=True)
class Curve:
    """A method's scores.

    Attributes:
        label: Its name on the page.
        arm: One of its arms, whose colour it has.
        points: Amount -> score over the seeds, ascending; None is all of the data.
    """

    label: str
    arm: Arm
    points: dict[float | None, Spread]

    @property
    def is_prompts(self) -> bool:
        """Whether inputs of the model are trained, and not its weights."""
        return self.arm.runs[0].config.method.name in _PROMPTS


@dataclass(frozen=True)
class Panel:
    """One score of one task.

    Attributes:
        name: What is scored, in words.
        unit: What stands after its value.
        split: The split that it is scored on.
        higher: Whether more is better.
        kind: What the amounts are, `SHOTS` or `SHARE`.
        curves: The methods with two amounts or more, those that end best first.
    """

    name: str
    unit: str
    split: str
    higher: bool
    kind: str
    curves: list[Curve]

    @property
    def amounts(self) -> list[float | None]:
        """All amounts, ascending."""
        return ascending({amount for curve in self.curves for amount in curve.points})


@dataclass
class Series:
    """A task with several amounts of its data.

    Attributes:
        title: Its name on the page.
        panels: Its score; of runs on base classes also the score on new ones, and the harmonic mean.
    """

    title: str
    panels: list[Panel] = field(default_factory=list)


def ascending(amounts: set[float | None]) -> list[float | None]:
    """Amounts from few to all, which is None."""
    return sorted(amounts, key=lambda amount: (amount is None, amount or 0.0))


def series_of(settings: Sequence[Setting]) -> list[Series]:
    """The tasks that were trained on several amounts of their data, in the order of the settings.

    Args:
        settings: All settings; what they differ in is read from their configs.
    """
    found = []
    for kind in (SHOTS, SHARE):
        keyed: dict[str, list[Setting]] = defaultdict(list)
        for setting in settings:
            data = as_dict(setting.example.config)["data"]
            other = SHARE if kind == SHOTS else SHOTS
            if data.get(other) in {None, 1.0} and kind in data:
                keyed[_but_for_the_amount(setting)].append(setting)
        groups = [group for group in keyed.values() if len({_amount(setting, kind) for setting in group}) > 1]
        titles = distinguished([_title(group) for group in groups], [_config(group[0]) for group in groups])
        found += [Series(title, _panels(group, kind)) for title, group in zip(titles, groups, strict=True)]
    return [series for series in found if series.panels]


def _amount(setting: Setting, kind: str) -> float | None:
    amount: float | None = getattr(setting.example.config.data, kind)
    return None if kind == SHARE and amount == 1.0 else amount


def _config(setting: Setting) -> dict[str, Any]:
    config = as_dict(setting.example.config)
    return {key: config[key] for key in ("task", "model", "data", "start_from")}


def _but_for_the_amount(setting: Setting) -> str:
    config = _config(setting)
    config["data"] = {key: value for key, value in config["data"].items() if key not in {SHOTS, SHARE}}
    return json.dumps([setting.goal, config], sort_keys=True, default=str)


def _title(group: Sequence[Setting]) -> str:
    runs = [run for setting in group for run in setting.runs]
    config = runs[0].config
    return called(runs, lambda cell: cell.task, f"{config.task}, {data_name(config.data)}")


def _panels(group: Sequence[Setting], kind: str) -> list[Panel]:
    goal, example = group[0].goal, group[0].example.record
    runs = [run for setting in group for arm in setting.arms for run in arm.chosen]
    split = "test" if any(f"test_{example.goal}" in run.record.metrics for run in runs) else example.split
    metrics = {example.goal: goal}
    if any(f"{split}_{example.goal}_new" in run.record.metrics for run in runs):
        metrics = {
            example.goal: f"{goal} on base classes",
            f"{example.goal}_new": f"{goal} on new classes",
            "harmonic_mean": "harmonic mean of both",
        }
    found = []
    for metric, words in metrics.items():
        curves = _curves(group, kind, f"{split}_{metric}")
        if curves:
            found.append(Panel(words, group[0].unit, split, group[0].higher, kind, curves))
    return found


def _curves(group: Sequence[Setting], kind: str, metric: str) -> list[Curve]:
    """A curve for each method; of arms that differ in the length of the training the best, as of learning rates."""
    keyed: dict[str, list[tuple[float | None, Arm]]] = defaultdict(list)
    for setting in group:
        amount = _amount(setting, kind)
        for arm in setting.arms:  # the best first
            known = keyed[json.dumps(_of_the_method(arm), sort_keys=True, default=str)]
            if amount not in {other for other, _ in known}:
                known.append((amount, arm))
    groups = list(keyed.values())
    names = [_label([run for _, arm in known for run in arm.runs]) for known in groups]
    labels = distinguished(names, [_of_the_method(known[0][1]) for known in groups])
    curves = []
    for label, known in zip(labels, groups, strict=True):
        spreads = {amount: spread([run.record.metrics.get(metric) for run in arm.chosen]) for amount, arm in known}
        points = {amount: value for amount in ascending(set(spreads)) if (value := spreads[amount]) is not None}
        if len(points) > 1:
            curves.append(Curve(label, known[0][1], points))
    sign = -1 if group[0].higher else 1
    return sorted(curves, key=lambda curve: sign * list(curve.points.values())[-1].mean)


def _label(runs: Sequence[FoundRun]) -> str:
    return called(runs, lambda cell: cell.row, method_name(runs[0].config.method))


def _of_the_method(arm: Arm) -> dict[str, Any]:
    config = as_dict(arm.runs[0].config)
    method = {key: value for key, value in config["method"].items() if key != "seed"}
    optimization = {key: value for key, value in config["optimization"].items() if key not in _LENGTH}
    return {"method": method, "optimization": optimization}
