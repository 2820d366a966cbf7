"""What lies at a path, asked before it is opened: a pipe would be waited for, a device read without end."""

import os
import stat
from pathlib import Path
from typing import Any

FILE, FOLDER, NOTHING = "a file", "a folder", "nothing"
UNREADABLE = PIPE, SOCKET, DEVICE = "a pipe", "a socket", "a device"

_KINDS = (
    (stat.S_ISREG, FILE),
    (stat.S_ISDIR, FOLDER),
    (stat.S_ISFIFO, PIPE),
    (stat.S_ISSOCK, SOCKET),
    (stat.S_ISCHR, DEVICE),
    (stat.S_ISBLK, DEVICE),
)


def kind_of(path: Path) -> str:
    """Say what lies at a path, behind links: `FILE`, `FOLDER`, `NOTHING`, or in words what else."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else NOTHING
    except (OSError, ValueError) as error:  # no access, links in a circle, too long a name, a NUL in it
        return getattr(error, "strerror", None) or str(error)
    return next((name for holds, name in _KINDS if holds(mode)), "something else")


def local(source: str) -> Path:
    """The path that a config's string names; `~` is the user's home, also where no shell has seen it."""
    try:
        return Path(source).expanduser()
    except RuntimeError:  # no such user
        return Path(source)


def path_of_cell(value: Any) -> str:
    """The path in a cell of an image column, or nothing where the image itself is in it."""
    path = value.get("path") if isinstance(value, dict) else value
    if isinstance(path, bytes):
        return os.fsdecode(path) if isinstance(value, dict) else ""
    return path if isinstance(path, str) else ""
