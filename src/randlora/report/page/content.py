"""Runs whose data and model have the same names: whether they had the same content, by the digests in their configs."""

from collections.abc import Sequence

from randlora.report.page.finding import FoundRun

_OF_EVERY_SEED = ("test data", "model")
_OF_A_SEED = ("training data", "validation data")
"""What may be drawn by a run's seed."""


def of_one_content(runs: Sequence[FoundRun]) -> list[tuple[list[FoundRun], dict[str, str]]]:
    """The runs in groups in which no two are known to have learned from, or been scored on, different content.

    Args:
        runs: Of the same data and model by name.

    Returns:
        Each group with what tells it from the others: the beginnings of digests, in words, by what they are of.
    """
    groups: list[list[FoundRun]] = []
    for run in runs:
        group = next((known for known in groups if all(_fit(run, other) for other in known)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    digests = [group[0].config.fingerprint for group in groups]
    telling = [name for name in (*_OF_EVERY_SEED, *_OF_A_SEED) if len({own.get(name) for own in digests}) > 1]
    words = [
        {name: f"{name.removesuffix(' data')} #{own[name][:4]}" for name in telling if name in own} for own in digests
    ]
    return list(zip(groups, words, strict=True))


def _fit(one: FoundRun, other: FoundRun) -> bool:
    names = (*_OF_EVERY_SEED, *(_OF_A_SEED if one.record.seed == other.record.seed else ()))
    ours, theirs = one.config.fingerprint, other.config.fingerprint
    return all(ours[name] == theirs[name] for name in names if name in ours and name in theirs)
