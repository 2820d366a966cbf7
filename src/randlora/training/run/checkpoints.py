"""Whether a checkpoint is whole: its last file lists the others, with sizes and digests."""

import json
from pathlib import Path

from randlora.files import digest

FILE_NAME = "progress.json"
"""Written last into a checkpoint: a checkpoint without it was cut short and must not be used."""

FILES = "files"
"""Key of the list in the last file."""


def list_files(checkpoint: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file of a checkpoint but the list's own."""
    names = sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())
    return {name: digest(checkpoint / name) for name in names if name != FILE_NAME and not name.endswith(".tmp")}


def damage(checkpoint: Path) -> str | None:
    """What keeps a checkpoint from being used, in words; None where it is whole."""
    try:
        listed = json.loads((checkpoint / FILE_NAME).read_text(encoding="utf-8"))[FILES]
        found = list_files(checkpoint)
    except FileNotFoundError:
        return "it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {FILE_NAME} cannot be read ({type(error).__name__}: {error})"
    for name in sorted({*listed, *found}) if isinstance(listed, dict) else [FILE_NAME]:
        if name not in found:
            return f"{name} is missing"
        if found[name] != listed.get(name):
            return f"{name} is not what was written"
    return None
