"""Seeded draws of examples: a validation split, shots, a share; each class keeps its part."""

import random
from collections import Counter
from collections.abc import Sequence

from randlora.errors import DataError
from randlora.tasks.classification.config import ClassificationData


def hold_out(classes: Sequence[int], wanted: float, seed: int, source: str) -> list[int]:
    """Draw rows to validate on; each class keeps one to train on.

    Args:
        classes: Class of each row.
        wanted: A share below 1, or a number of rows.
        seed: The same seed draws the same rows.
        source: Where the rows come from, for the message.

    Returns:
        The rows, in their order.

    Raises:
        DataError: It would be none, or leave a class without a row.
    """
    count = round(wanted * len(classes)) if wanted < 1 else int(wanted)
    left = Counter(classes)
    order = list(range(len(classes)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a repeatable draw, nothing secret
    held_out: set[int] = set()
    for row in order:
        if len(held_out) < count and left[classes[row]] > 1:
            left[classes[row]] -= 1
            held_out.add(row)
    if not held_out or len(held_out) < count:
        raise DataError(
            "data.validation",
            expected=f"from 1 to {len(classes) - len(left)} of the {len(classes)} rows of {source}",
            got=f"{wanted:g}, which is {count}",
            hint="each class keeps a row to train on",
        )
    return sorted(held_out)


def draw(classes: Sequence[int], names: Sequence[str], data: ClassificationData, seed: int) -> list[int]:
    """Draw `data.shots` rows, or the fraction `data.fraction`, from each class; without either, all.

    Args:
        classes: Class of each row.
        names: Names of the classes.
        data: The data section of the config.
        seed: The same seed draws the same rows.

    Returns:
        The rows, in their order.

    Raises:
        DataError: A class has fewer rows than shots.
    """
    if data.shots is None and data.fraction is None:
        return list(range(len(classes)))
    members: dict[int, list[int]] = {}
    for row, label in enumerate(classes):
        members.setdefault(label, []).append(row)
    generator = random.Random(seed)  # noqa: S311 - a repeatable draw, nothing secret
    chosen: list[int] = []
    for label in sorted(members):
        rows = members[label]
        count = data.shots if data.shots is not None else max(1, round((data.fraction or 1.0) * len(rows)))
        if count > len(rows):
            raise DataError(
                "data.shots",
                expected=f"at most {len(rows)}, the rows of class '{names[label]}' in {data.train}",
                got=str(count),
            )
        chosen.extend(generator.sample(rows, count))
    return sorted(chosen)
