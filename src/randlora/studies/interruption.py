"""What asks a worker to end: it gives its run back, where a worker that merely dies has to be missed first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
"""Of `kill` and of clusters, of a terminal that is closed, and what clusters send some time before a limit."""


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let every signal that asks for an end do what Ctrl-C does, once; those that somebody has use for are left.

    The block must run in the process's main thread.
    """

    def interrupt(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # clusters send it again, while the run is given back
        raise KeyboardInterrupt

    taken = [number for number in _ASKING if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
