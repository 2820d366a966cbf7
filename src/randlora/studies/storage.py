"""Where a study's queue lies, as `study.json` says it: whoever has the folder finds the queue, and no password."""

import json
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from randlora.errors import ConfigError, OutputError

OWN = "study.json"
"""Whose folder it is, and where its queue lies."""

IN_FOLDER = "journal"
"""A queue in the study's own folder."""


def begun(folder: Path) -> tuple[str, str] | None:
    """The name of the study that a folder belongs to, and where its queue lies, see `place_of`; None for no study's.

    Raises:
        OutputError: The file that says so is damaged.
    """
    path = folder / OWN
    if not path.is_file():
        return None
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return str(known["study"]), str(known["queue"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        got, hint = type(error).__name__, "choose another --output"
        raise OutputError(str(path), expected="what a study writes", got=got, hint=hint) from error


def place_of(storage: str | None) -> str:
    """What `study.json` says of a queue.

    Args:
        storage: URL of a database, as SQLAlchemy takes it; None means the journal.

    Returns:
        "journal", or the URL without passwords; a file of SQLite by its whole path.

    Raises:
        ConfigError: It is no URL of a database, or of one in the memory of a single process.

    Example:
        >>> place_of("postgresql://me:secret@host/studies")
        'postgresql://me@host/studies'
    """
    if storage is None:
        return IN_FOLDER
    url = _url(storage)
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise ConfigError("--storage", expected="a database that other workers can open", got=repr(storage))
        url = url.set(database=str(Path(str(url.database)).absolute()))
    query = {key: value for key, value in url.query.items() if "pass" not in key.lower()}
    return URL.create(url.drivername, url.username, None, url.host, url.port, url.database, query).render_as_string()


def check_there(place: str, name: str) -> None:
    """Check that the file of a queue is there, where it is one: SQLite would make an empty one.

    Args:
        place: From `place_of`.
        name: Of the study.

    Raises:
        ConfigError: It is no URL of a database.
        OutputError: The file is not there.
    """
    url = None if place == IN_FOLDER else _url(place)
    if url is not None and url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        hint = "give --storage to begin a queue anew; what is finished is known by the runs' own records"
        raise OutputError(str(url.database), expected=f"the queue of the study {name}", got="nothing there", hint=hint)


def _url(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError) as error:  # of a port that is no number, Python's own
        expected = "the URL of a database"
        hint = "such as postgresql://user@host/database; a password's @ is %40 there, its / %2F, its # %23, its % %25"
        got = f"{type(error).__name__}, {len(text)} characters"  # which may be a password's
        raise ConfigError("--storage", expected=expected, got=got, hint=hint) from error
