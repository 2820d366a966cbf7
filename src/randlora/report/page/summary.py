"""What a report begins with: what was run, the best, what it cost, what to do next."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from randlora.messages import printable, short
from randlora.methods import PROMPTS
from randlora.report.page.grouping import Arm, Setting
from randlora.report.page.tables import general_change, goal_words, seconds_words
from randlora.report.table import binary_bytes, count

_MOST_STEPS = 8
_WITHOUT_WEIGHTS = {"head", *(method.name for method in PROMPTS)}
"""Methods that change no weight of their model, of which there is no spectrum."""
_FORGOTTEN = 0.1
"""Rise of the loss on a general text, in nats for each token, from which a line says so."""


@dataclass
class Summary:
    """The summary's lines.

    Attributes:
        ran: What was run.
        best: The best of each setting.
        cost: What it cost.
        steps: What to do next, each with a command or without.
    """

    ran: list[str] = field(default_factory=list)
    best: list[str] = field(default_factory=list)
    cost: list[str] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)


def summarize(settings: Sequence[Setting], analyses: Sequence[str], passed_over: int) -> Summary:
    """The summary of a report.

    Args:
        settings: All settings.
        analyses: Names of the analyses on the page.
        passed_over: How many folders and files were passed over.
    """
    found = Summary()
    runs = [run for setting in settings for run in setting.runs]
    methods = {run.record.method for run in runs}
    models = sorted({run.record.model.rstrip("/").rpartition("/")[2] for run in runs})
    if runs:
        found.ran.append(
            f"{_many(len(runs), 'run')} of {_many(len(methods), 'method')} on {_many(len(settings), 'task')}, "
            f"from {', '.join(map(short, models))}"
        )
        peak = max(run.record.peak_memory_bytes for run in runs)
        time = sum(run.record.train_seconds for run in runs)
        found.cost.append(f"{seconds_words(time)} of training in all, at most {binary_bytes(peak)} of memory")
    if analyses:
        found.ran.append(f"{_many(len(analyses), 'result')} of analyses: {', '.join(sorted(set(analyses)))}")
    if passed_over:
        found.ran.append(f"{_many(passed_over, 'folder or file', 'folders or files')} passed over, see the end")
    for setting in settings:
        best = setting.arms[0]
        if setting.score(best) is not None:
            found.best.append(_best(setting))
            found.cost.append(_price(setting))
    found.steps = _gathered(settings)[:_MOST_STEPS]
    if runs and "spectrum" not in analyses:
        looked_at = next((run for run in runs if run.record.method not in _WITHOUT_WEIGHTS), None)
        if looked_at:
            command = f"randlora analyze spectrum {printable(shlex.quote(str(looked_at.path)))}"
            found.steps.append(("See what a run added to the weights, and which rank that takes:", command))
    return found


def _many(number: int, what: str, plural: str = "") -> str:
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def _value(setting: Setting, arm: Arm) -> str:
    """The arm's score, with its unit."""
    return f"{goal_words(setting.score(arm), setting.unit)} {setting.unit}".strip()


def _best(setting: Setting) -> str:
    best = setting.arms[0]
    chosen = f"chosen on {best.split}" if len(setting.arms) + len(best.rates) > 2 else "the only one"
    words = f"{setting.title}: {best.label} is best ({chosen}), {setting.split} {setting.goal} {_value(setting, best)}"
    before = best.mean(lambda run: run.record.before)
    if before is not None:
        measured = best.chosen[0].record.split
        where = "" if measured == setting.split else f" on {measured}"
        words += f", before training{where} {goal_words(before, setting.unit)} {setting.unit}".rstrip()
    if len(setting.arms) > 1 and setting.score(setting.arms[1]) is not None:
        words += f"; next is {setting.arms[1].label}, {_value(setting, setting.arms[1])}"
    return words


def _price(setting: Setting) -> str:
    best = setting.arms[0]
    trained = best.mean(lambda run: run.record.trainable_parameters) or 0.0
    time = best.mean(lambda run: run.record.train_seconds) or 0.0
    memory = best.mean(lambda run: run.record.peak_memory_bytes) or 0.0
    size = best.mean(lambda run: run.record.adapter_bytes) or 0.0
    return (
        f"{setting.title}: {best.label} trains {count(trained)} numbers in {seconds_words(time)} with "
        f"{binary_bytes(memory)} of memory; its files take {binary_bytes(size)}"
    )


def _next(setting: Setting) -> list[tuple[str, str]]:
    """What would make the result of a setting firmer, each with a command or without."""
    best = setting.arms[0]
    steps: list[tuple[str, str]] = []
    rates = sorted(best.rates)
    if best.split == "test" and len(setting.arms) + len(rates) > 2:
        steps.append(("what is best was chosen on the test split, which flatters it; set data.validation", ""))
    edge = best.best_rate
    if len(rates) > 1 and edge in {rates[0], rates[-1]}:
        beyond = edge**2 / (rates[1] if edge == rates[0] else rates[-2])
        if not any(min(edge, beyond) <= rate <= max(edge, beyond) for rate in best.diverged):
            steps.append((f"the best rate of {best.label} is at the edge of those tried; try {beyond:.1g}", ""))
    if len(setting.arms) > 1 and any(len(arm.rates) == 1 for arm in setting.arms):
        words = "some methods had one learning rate; they compare fairly when each has its best:"
        steps.append((words, "randlora search CONFIG.yaml --rates 3e-4,1e-3,3e-3"))
    if len(best.chosen) == 1:
        steps.append(("the best has one seed; with three a difference can be told from chance", ""))
    elif len(setting.arms) > 1:
        first, second = setting.score(best), setting.score(setting.arms[1])
        if first and second and abs(first.mean - second.mean) <= max(first.deviation or 0.0, second.deviation or 0.0):
            steps.append(
                (f"the difference of {best.label} and {setting.arms[1].label} is no larger than that of two seeds", "")
            )
    forgot = [arm for arm in setting.arms if (arm.mean(general_change) or 0.0) > _FORGOTTEN]
    if forgot:
        most = max(forgot, key=lambda arm: arm.mean(general_change) or 0.0)
        lost = most.mean(general_change) or 0.0
        steps.append((f"the general loss of {most.label} rose by {lost:.2f}; a lower rate forgets less", ""))
    return steps


def _gathered(settings: Sequence[Setting]) -> list[tuple[str, str]]:
    """The next steps of all settings; what several have in common is said once."""
    titles: dict[tuple[str, str], list[str]] = {}
    for setting in settings:
        if setting.score(setting.arms[0]) is not None:
            for step in _next(setting):
                titles.setdefault(step, []).append(setting.title)
    found = []
    for (words, command), of in titles.items():
        where = (
            "" if len(settings) == 1 else f"{of[0]}: " if len(of) == 1 else f"on {len(of)} of {len(settings)} tasks "
        )
        text = f"{where}{words}{'' if command else '.'}"
        found.append((text if len(of) == 1 < len(settings) else f"{text[0].upper()}{text[1:]}", command))
    return found
