"""Types of the values of a config: what YAML has, its range, and both in words for whoever got it wrong."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import Strict

_BELOW = Lt(2**31)  # what libraries count with
_FINITE = Lt(float("inf"))

# To Python True is a number and 3.0 may be whole; to a reader of YAML neither is.
Flag = Annotated[bool, Strict(), "true or false"]

Count = Annotated[int, Strict(), Ge(0), _BELOW, "a whole number of at least 0, below 2^31"]
PositiveCount = Annotated[int, Strict(), Gt(0), _BELOW, "a whole number above 0, below 2^31"]
AsLora = Annotated[dict[Literal["as_lora"], PositiveCount], Len(1), "{as_lora: RANK}"]
Steps = Annotated[int, Strict(), Ge(-1), _BELOW, "-1 or a whole number above 0, below 2^31"]
Seed = Annotated[int, Strict(), Ge(0), Lt(2**32), "a whole number from 0 to 2^32 - 1"]
BasesSeed = Annotated[int, Strict(), Ge(0), "a whole number of at least 0"]
Positive = Annotated[float, Strict(), Gt(0), _FINITE, "a number above 0"]
NotNegative = Annotated[float, Strict(), Ge(0), _FINITE, "a number of at least 0"]
Share = Annotated[float, Strict(), Gt(0), Le(1), "a number above 0, at most 1"]
BelowOne = Annotated[float, Strict(), Ge(0), Lt(1), "a number from 0 to below 1"]
OpenShare = Annotated[float, Strict(), Gt(0), Lt(1), "a share between 0 and 1"]
Epochs = Annotated[float, Strict(), Gt(0), Le(10**6), "a number above 0, at most a million"]
