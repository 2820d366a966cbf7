"""The folder that analyses are written to."""

from pathlib import Path

from randlora.files import checked_folder
from randlora.locks import LOCK

ANALYSES = ("spectrum", "cka", "landscape", "theory", "transfer")
PARTIAL = "landscape.partial.json"
"""Grid points of a landscape that is not finished."""
_FILES = {f"{name}.{ending}" for name in ANALYSES for ending in ("json", "md", "png", "svg", "html")} | {PARTIAL}
_OWN = _FILES | {LOCK} | {f".{name}.tmp" for name in _FILES}
"""Also what an analysis leaves behind that was killed as it wrote."""


def output_folder(path: str | Path) -> Path:
    """Check a folder for analyses, before anything is computed; it is made when there is something to write.

    Args:
        path: A folder that is new, empty, or holds analyses, of which those of the same name are overwritten.

    Raises:
        OutputError: It holds something else.
    """
    return checked_folder(path, "a new or empty folder, or one of analyses", _foreign)


def _foreign(folder: Path) -> str | None:
    return min((entry.name for entry in folder.iterdir() if entry.name not in _OWN or entry.is_symlink()), default=None)
