"""Where the curve of a prompt method and that of another method cross, in words."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from randlora.report.page.amounts import SHOTS, Curve, Panel

_AHEAD, _BEHIND, _WITHIN = "ahead", "behind", "within the spread"

_Stretch = tuple[str, float | None, float | None]
"""How a method stands to another, from an amount to an amount."""


def crossings(panel: Panel) -> list[str]:
    """Which prompt method is ahead of which other method at how much data, a line each; those that cross come first.

    One is ahead where the difference of the means is larger than both standard deviations together, so that the bars
    of the figure do not meet.

    Args:
        panel: One score of one task.
    """
    alike: dict[tuple[tuple[_Stretch, ...], tuple[str, ...]], list[str]] = defaultdict(list)
    weights = [curve for curve in panel.curves if not curve.is_prompts]
    prompts = [curve for curve in panel.curves if curve.is_prompts]
    for prompt in prompts:
        against: dict[tuple[_Stretch, ...], list[str]] = defaultdict(list)
        for weight in weights:
            found = _stretches(prompt, weight, panel)
            if found:
                against[found].append(weight.label)
        for found, names in against.items():
            alike[found, tuple(names)].append(prompt.label)
    if prompts and weights and not alike:
        return ["With one seed there is no spread, and no method is said to be ahead of another."]
    order = sorted(alike, key=lambda entry: not _crosses(entry[0]))
    return [_sentence(alike[found, names], names, found, panel) for found, names in order]


def _stretches(ours: Curve, others: Curve, panel: Panel) -> tuple[_Stretch, ...]:
    """How one curve stands to another over the amounts where both have a spread."""
    standing = []
    for amount in panel.amounts:
        one, two = ours.points.get(amount), others.points.get(amount)
        if one is None or two is None or one.deviation is None or two.deviation is None:
            continue
        ahead = (one.mean - two.mean) * (1 if panel.higher else -1)
        told = abs(ahead) > one.deviation + two.deviation
        standing.append((amount, _WITHIN if not told else _AHEAD if ahead > 0 else _BEHIND))
    stretches = [(words, list(part)) for words, part in groupby(standing, key=lambda entry: entry[1])]
    return tuple((words, part[0][0], part[-1][0]) for words, part in stretches)


def _crosses(stretches: Sequence[_Stretch]) -> bool:
    return {_AHEAD, _BEHIND} <= {words for words, _, _ in stretches}


def _sentence(ours: Sequence[str], others: Sequence[str], stretches: Sequence[_Stretch], panel: Panel) -> str:
    parts = []
    for place, (words, first, last) in enumerate(stretches):
        of = "" if place else f" {_listed(others)}" if words == _BEHIND else f" of {_listed(others)}"
        if len(stretches) == 1:
            where = "at every amount"
        elif place == 0:
            where = f"at {_words(first, panel)}" if first == last else f"up to {_words(last, panel)}"
        elif place == len(stretches) - 1:
            where = f"with {_words(first, panel)}" if first is None else f"from {_words(first, panel)} on"
        else:
            where = f"at {_words(first, panel)}" if first == last else f"from {first:g} to {_words(last, panel)}"
        parts.append(f"{words}{of} {where}")
    return f"{_listed(ours)} {'is' if len(ours) == 1 else 'are'} {', '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _words(amount: float | None, panel: Panel) -> str:
    if amount is None:
        return "all data"
    if panel.kind == SHOTS:
        return f"{amount:g} {'shot' if amount == 1 else 'shots'}"
    return f"{100 * amount:g} % of the data"
