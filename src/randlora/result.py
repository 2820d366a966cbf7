"""What every analysis, and every study, gives: numbers and words, which the report draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """Numbers and words of an analysis or a study, without any picture.

    Attributes:
        name: Which analysis; the stem of its files.
        title: What was looked at, in one line.
        summary: What came out, a line each.
        rows: A table, a mapping for each line.
        data: All numbers, as JSON takes them.
        more: Further tables by their titles.
    """

    name: str
    title: str
    summary: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any]
    more: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
