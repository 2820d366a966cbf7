"""Progress bars on the error stream, with the time that is left."""

import sys
from typing import Any

from tqdm.auto import tqdm

from randlora.messages import is_first_process


def progress_bar(what: str, unit: str, **options: Any) -> "tqdm[Any]":
    """A bar; only the first process of a distributed run shows it.

    Args:
        what: What is going on.
        unit: What is counted.
        options: Of tqdm, such as `total`.
    """
    # In a log file, where a bar cannot redraw its line, a line every ten seconds is enough.
    interval = 0.1 if sys.stderr.isatty() else 10.0
    options = {"disable": not is_first_process(), **options}
    return tqdm(desc=what, unit=unit, dynamic_ncols=True, mininterval=interval, **options)
