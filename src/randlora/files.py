"""Writing whole files and folders: what is written appears complete, or not at all."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from randlora.errors import ConfigError, OutputError

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def write_atomically(path: Path, content: str | bytes, *, shared: bool = False) -> None:
    """Write a file so that it is there whole or not at all; a link in the place of either name is replaced.

    Args:
        path: The file.
        content: What it is to hold; a text in UTF-8.
        shared: Whether other processes may write it now: each then has a temporary file of its own, since another's
            would be moved half written.
    """
    own = f".{secrets.token_hex(4)}" if shared else ""
    temporary = path.with_name(f".{path.name}{own}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_if_new(path: Path, content: str) -> None:
    """Write a text file atomically, unless this is its content: of many processes that begin at once none disturbs."""
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        write_atomically(path, content, shared=True)


def expanded(path: str | Path) -> Path:
    """A path, in which `~` is the user's home.

    Raises:
        ConfigError: It is that of a user who is not there.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(str(path), expected="a path", got="the home of a user who is not there") from error


def checked_folder(path: str | Path, expected: str, other_in: Callable[[Path], str | None]) -> Path:
    """Check a folder that is to be written into, before anything is computed; it need not be there.

    Args:
        path: The folder.
        expected: What it may be, for the message.
        other_in: Name of an entry of a folder that is not to be written over; None where there is none.

    Raises:
        OutputError: It is no folder, holds something else, or cannot be written.
    """
    folder = expanded(path)
    nearest = next((above for above in (folder, *folder.parents) if above.exists()), folder)
    got = None
    if folder.is_symlink() and not folder.exists():
        got = "a link to nothing"
    elif folder.exists() and not folder.is_dir():
        got = "a file"
    elif folder.is_dir() and (other := other_in(folder)) is not None:
        got = f"one that holds {other}"
    elif nearest != folder and not nearest.is_dir():
        got = f"one below {nearest}, which is a file"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        got = "one that may not be written"
    if got is not None:
        raise OutputError(str(folder), expected=expected, got=got, hint="choose another --output")
    return folder


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


@contextmanager
def writing(path: Path, hint: str = "make room or choose another folder") -> Iterator[None]:
    """Turn a full disk, a lost right or the like into an OutputError that names the folder.

    Errors that are about other files, as of reading data, are left as they are.

    Args:
        path: The folder that is written in the block.
        hint: What the user can do.
    """
    try:
        yield
    except OutputError:
        raise
    # `torch.save` tells of a full disk by a RuntimeError from its archive writer, safetensors by a class of its own.
    except Exception as error:
        if not _is_of_writing(error, path):
            raise
        raise OutputError(
            str(path),
            expected="a folder that can be written",
            got=getattr(error, "strerror", None) or str(error),
            hint=hint,
        ) from error


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that it came of, is that a disk, or a user's share of it, is full."""
    full: BaseException | None = error
    while full is not None:
        # Of libraries that write in other languages the words are all there is.
        if getattr(full, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(full):
            return True
        full = full.__cause__ or full.__context__
    return False


def _is_of_writing(error: Exception, path: Path) -> bool:
    if isinstance(error, OSError):
        names = [name for name in (error.filename, error.filename2) if isinstance(name, str | Path)]
        return any(_concerns(Path(name).absolute(), path.absolute()) for name in names) or (
            not names and error.errno in _OF_WRITING
        )
    text = str(error)
    return "inline_container" in text or ("os error" in text and type(error).__name__ == "SafetensorError")


def _concerns(file: Path, folder: Path) -> bool:
    """Whether a file lies in a folder or above it, or in the temporary one beside it, and not merely beside it."""
    temporary = file.is_relative_to(folder.parent) and str(file).startswith(str(folder.with_name(f".{folder.name}.")))
    return temporary or file.is_relative_to(folder) or folder.is_relative_to(file)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes its name `path` when the block ends without an error.

    Args:
        path: The folder to make. It must not exist, or be empty.

    Yields:
        The temporary folder, beside the final one, with a name that nothing else has.

    Raises:
        OutputError: The folder holds something, or cannot be written.
    """
    given = expanded(path)
    with writing(given):
        path = given.resolve()  # a link to an empty folder stays a link
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            got = "one that holds files" if path.is_dir() else "a file"
            raise OutputError(str(given), expected="a new or empty folder", got=got, hint="choose another folder")
        if given.is_symlink() and not path.exists():
            raise OutputError(str(given), expected="a new or empty folder", got="a link to nothing", hint="remove it")
        temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        try:
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                path.rmdir()
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
