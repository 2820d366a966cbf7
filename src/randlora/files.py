"""Writing whole files and folders: what is written appears complete, or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from randlora.errors import OutputError


def write_atomically(path: Path, content: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes its name `path` when the block ends without an error.

    Args:
        path: The folder to make. It must not exist, or be empty.

    Yields:
        The temporary folder, beside the final one.

    Raises:
        OutputError: The folder holds something, or cannot be written.
    """
    path = Path(path).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(
            str(path), expected="a new or empty folder", got="one that holds files", hint="choose another folder"
        )
    temporary = path.parent / f".{path.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            str(path),
            expected="a folder that can be written",
            got=error.strerror or str(error),
            hint="make room or choose another folder",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
