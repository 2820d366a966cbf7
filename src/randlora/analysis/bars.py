"""Progress bars with the time left."""

import sys
from typing import Any

from tqdm.auto import tqdm


def bar(what: str, unit: str, total: int, done: int = 0) -> "tqdm[Any]":
    """A bar on the error stream, which shows the time left and is gone when it is closed.

    Args:
        what: What is being done.
        unit: What is counted.
        total: How many there are.
        done: How many were done before.
    """
    # In a log file, where a bar cannot redraw its line, a line every ten seconds is enough.
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(desc=what, unit=unit, total=total, initial=done, dynamic_ncols=True, mininterval=interval, leave=False)
