"""Who is at work on a run, and whether they still live: without clocks that would have to agree."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

BEAT_SECONDS = 20.0
"""How often a worker shows that it lives."""

SILENCE_SECONDS = 120.0
"""After how long without a sign a worker of another machine counts as dead."""


def holder() -> dict[str, Any]:
    """This process, as the queue names it."""
    return {"host": _host(), "pid": os.getpid(), "born": _born(os.getpid()), "beat": 0}


def in_words(known: Mapping[str, Any]) -> str:
    """A holder, for the reader: `process 4711 on node7`."""
    return f"process {known.get('pid')} on {str(known.get('host')).partition(' ')[0]}"


def _host() -> str:
    """A machine since it was started, and there a space of process numbers: containers share names, not these."""
    parts = [platform.node()]
    with suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _born(pid: int) -> float | None:
    """When a process of this machine was started; None for one that has ended, though its parent may not know it."""
    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return None
        with suppress(OSError):  # not Linux, which counts from its own start: the clock may be set meanwhile
            after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
            return float(after_name.split()[19])
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


class Watch:
    """Tells living holders from dead ones.

    A process of this machine lives if it is there; one of another machine as long as its beats go on. How long they
    have not is measured here, from when this process first saw the last of them.
    """

    def __init__(self) -> None:
        self._host = _host()
        self._seen: dict[int, tuple[Any, float]] = {}

    def lives(self, number: int, known: Mapping[str, Any]) -> bool:
        """Whether a holder lives.

        Args:
            number: Of its attempt.
            known: See `holder`.
        """
        if known.get("host") == self._host:
            return _born(known["pid"]) == known["born"]
        now = time.monotonic()
        beat, since = self._seen.get(number, (None, now))
        if beat != known.get("beat"):
            since = now
        self._seen[number] = (known.get("beat"), since)
        return now - since < SILENCE_SECONDS


@contextmanager
def beating(beat: Callable[[int], bool]) -> Iterator[None]:
    """Call `beat(1)`, `beat(2)` and so on from a thread, every `BEAT_SECONDS`, while the block runs.

    Args:
        beat: Shows that this process lives, and says whether to go on.
    """
    done = Event()

    def go_on() -> None:
        number = 0
        while not done.wait(BEAT_SECONDS):
            number += 1
            goes_on = True
            with suppress(Exception):  # a storage that cannot be reached for a while is no fault of the run's
                goes_on = beat(number)
            if not goes_on:
                return

    thread = Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
