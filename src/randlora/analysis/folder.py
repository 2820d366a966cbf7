"""The folder that analyses are written to."""

from pathlib import Path

from randlora.errors import OutputError

ANALYSES = ("spectrum", "cka", "landscape", "theory", "transfer")
PARTIAL = "landscape.partial.json"
"""Grid points of a landscape that is not finished."""
_OWN = {f"{name}.{ending}" for name in ANALYSES for ending in ("json", "md", "png", "svg", "html")} | {PARTIAL}


def output_folder(path: str | Path) -> Path:
    """Check a folder for analyses, before anything is computed; it is made when there is something to write.

    Args:
        path: A folder that is new, empty, or holds analyses, of which those of the same name are overwritten.

    Raises:
        OutputError: It holds something else.
    """
    folder = Path(path).expanduser()
    expected, hint = "a new or empty folder, or one of analyses", "choose another --output"
    if folder.is_symlink() and not folder.exists():
        raise OutputError(str(folder), expected=expected, got="a link to nothing", hint=hint)
    if folder.exists():
        if not folder.is_dir():
            raise OutputError(str(folder), expected=expected, got="a file", hint=hint)
        other = sorted(entry.name for entry in folder.iterdir() if entry.name not in _OWN or entry.is_symlink())
        if other:
            raise OutputError(str(folder), expected=expected, got=f"one that holds {other[0]}", hint=hint)
    return folder
