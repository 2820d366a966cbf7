"""Several sources in one training set: how much of each, what is held out, and what stands in both by mistake."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from randlora.errors import ConfigError, DataError
from randlora.tasks.language.forms import FORMS

MOST = 10_000
"""Times that a source is learned in an epoch at most: rows are listed as often."""


@dataclass(frozen=True)
class Source:
    """A source of a mixture.

    Attributes:
        source: A data file, or a name on the hub.
        weight: Times that its rows are learned in an epoch: 0.5 draws half of them, 2.5 takes all twice and draws half.
        split: The hub data set's split; a file has one only. None means the one that it is read for.
        form: The form to read it in, where its columns belong to several.
        subset: The hub data set's configuration, where it has several.
    """

    source: str
    weight: float = 1.0
    split: str | None = None
    form: str | None = None
    subset: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight <= MOST:
            expected = f"a number above 0, at most {MOST:,}"
            raise ConfigError(f"weight of {self.source}", expected=expected, got=str(self.weight))
        names = [form.name for form in FORMS]
        if self.form is not None and self.form not in names:
            raise ConfigError(f"form of {self.source}", expected=f"one of {', '.join(names)}", got=repr(self.form))


def read_sources(value: Any, key: str = "data.train") -> list[Source]:
    """Read a config's value: one source, or a list of them.

    Args:
        value: A string, a mapping of `Source`'s fields, a `Source`, or a list of such.
        key: The config key it comes from, for the message.

    Raises:
        ConfigError: It is none of these, or a weight is not above 0 or too large.

    Example:
        >>> read_sources(["chat.jsonl", {"source": "books.parquet", "weight": 0.1}])[1].weight
        0.1
    """
    entries = value if isinstance(value, list | tuple) else [value]
    if not entries:
        raise ConfigError(key, expected="a source, or a list of them", got="an empty list")
    return [_source(entry, key if entries is not value else f"{key}[{place}]") for place, entry in enumerate(entries)]


def _source(entry: Any, key: str) -> Source:
    if isinstance(entry, Source):
        return entry
    if isinstance(entry, str):
        return Source(entry)
    names = [field.name for field in fields(Source)]
    if not isinstance(entry, Mapping) or not isinstance(entry.get("source"), str):
        raise ConfigError(key, expected="a file, a hub name, or a mapping with 'source'", got=repr(entry))
    unknown = [str(name) for name in entry if name not in names]
    if unknown:
        raise ConfigError(key, expected=f"keys among {', '.join(names)}", got=", ".join(unknown))
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"{key}.weight", expected="a number above 0", got=repr(weight))
    return Source(**dict(entry))


def draw(count: int, weight: float, *, seed: str) -> list[int]:
    """Choose `round(weight · count)` of `count` rows.

    Args:
        count: Rows that there are.
        weight: Times that each is wanted; whole times are all rows, what is left is drawn without replacement.
        seed: The same seed draws the same rows on every machine.

    Returns:
        Row numbers, ascending within each repetition.
    """
    whole, rest = divmod(round(weight * count), count) if count else (0, 0)
    drawn = sorted(random.Random(seed).sample(range(count), rest))  # noqa: S311 - a repeatable draw, nothing secret
    return [*(list(range(count)) * whole), *drawn]


def hold_out(counts: Sequence[int], size: float, *, seed: str) -> list[list[int]]:
    """Choose rows for validation from every source.

    They are chosen before rows are repeated, so that no copy of one is learned.

    Args:
        counts: Rows of each source.
        size: A share below 1, taken of each source and rounded, or a whole number of rows, divided among the sources
            by their sizes.
        seed: The same seed chooses the same rows on every machine.

    Returns:
        Row numbers for each source, ascending.

    Raises:
        ConfigError: It is not above 0, or leaves nothing to train on or to validate with.
    """
    total = sum(counts)
    if not 0 < size < total or (size >= 1 and size != int(size)):
        shares = []
    elif size < 1:
        shares = [round(size * count) for count in counts]
    else:
        exact = [size * count / total for count in counts]
        shares = [int(share) for share in exact]
        # What rounding down has left over goes to the largest remainders.
        by_remainder = sorted(range(len(counts)), key=lambda place: shares[place] - exact[place])
        for place in by_remainder[: int(size) - sum(shares)]:
            shares[place] += 1
    if not 0 < sum(shares) < total:
        raise ConfigError(
            "data.validation",
            expected=f"a share between 0 and 1, or a number of rows, that parts the {total:,} rows in two",
            got=str(size),
        )
    return [
        sorted(random.Random(f"{seed}/{place}").sample(range(count), share))  # noqa: S311
        for place, (count, share) in enumerate(zip(counts, shares, strict=True))
    ]


def require_drawn(source: Source, rows: int, drawn: int) -> None:
    """Check that a source contributes an example.

    Raises:
        DataError: Its weight rounds to none.
    """
    if not drawn:
        raise DataError(
            source.source,
            expected="a weight that gives at least one example",
            got=f"{source.weight} of {rows:,} rows",
        )
