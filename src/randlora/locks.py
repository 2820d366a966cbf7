"""One process for a folder at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from randlora.errors import OutputError
from randlora.files import writing

LOCK = ".lock"


@contextmanager
def locked(path: Path, busy: OutputError, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes out of a folder; the lock of one that has died counts for nothing.

    A folder that was made for it, and has nothing in it at the end, is removed.

    Args:
        path: The folder; it need not exist.
        busy: What to raise where another process holds the lock.
        check: Looks at the folder before anything is written in it.

    Raises:
        OutputError: Another process holds the lock, or the folder cannot be written.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    lock = filelock.FileLock(path / LOCK, blocking=False)
    try:
        with writing(path, hint="choose another folder"):
            path.mkdir(parents=True, exist_ok=True)
            check()
            try:
                lock.acquire()
            except filelock.Timeout as error:
                raise busy from error
        yield
    finally:
        if lock.is_locked:
            (path / LOCK).unlink(missing_ok=True)  # before another can take it
            lock.release()
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
