"""A queue in a database: opened, or what is wrong said in a line, and waited for while its server is away."""

import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import (
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)

from randlora.errors import ConfigError, OutputError
from randlora.messages import note

PATIENCE_SECONDS = 600.0
"""How long a server that has answered before may be away, as while it is started again."""

_AWAY = (OperationalError, InterfaceError, PendingRollbackError)
"""SQLAlchemy's errors of a server that is away; the last is of a transaction that the server went away in."""

_BETWEEN_SECONDS = 1.0
_TRIES = 5
_DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary"}
"""Modules that have another name, or need more, where they are installed."""


class Database:
    """Optuna's storage in a database, each call of which waits for a server that is away.

    Args:
        url: As SQLAlchemy takes it.

    Raises:
        ConfigError: It cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._storage = _opened(url)
        self._has_server = self._storage.engine.dialect.name != "sqlite"

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        return wraps(found)(lambda *args, **options: self._patiently(lambda: found(*args, **options)))

    def _patiently(self, call: Callable[[], Any]) -> Any:
        began, told = time.monotonic(), False
        while isinstance(found := _tried(call), Exception):
            away = self._has_server and any(isinstance(error, _AWAY) for error in _chain(found))
            if not away or time.monotonic() > began + PATIENCE_SECONDS:
                hint = "the same command again goes on where it was"
                expected = "a database that can be read and written"
                raise OutputError("--storage", expected=expected, got=_in_words(found), hint=hint) from found
            if not told:
                note(f"--storage: {_in_words(found)}; waiting for it, at most {PATIENCE_SECONDS / 60:.0f} minutes")
                told = True
            self._storage.remove_session()  # which may be in the middle of what the server has forgotten
            time.sleep(_BETWEEN_SECONDS)
        return found


def _tried(call: Callable[[], Any]) -> Any:
    """What a call gives, or the error of the database."""
    try:
        return call()
    except (SQLAlchemyError, StorageInternalError) as error:
        return error


def _opened(url: str, tries: int = _TRIES) -> RDBStorage:
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except Exception as error:  # SQLAlchemy's, its drivers', and Python's for a driver that is missing
        # Workers that begin at once make the same tables.
        if tries == 1 or not (isinstance(error, IntegrityError) or "already exists" in str(error)):
            raise _explained(error) from error
    time.sleep(_BETWEEN_SECONDS)
    return _opened(url, tries - 1)


def _explained(error: Exception) -> ConfigError:
    for cause in _chain(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            hint = f"pip install {_DRIVERS.get(cause.name, cause.name)}"
            return ConfigError("--storage", expected=f"the package {cause.name}, its driver", got="none", hint=hint)
    if isinstance(error, NoSuchModuleError):
        expected, hint = "the URL of a database", "such as postgresql://user@host/database"
    else:
        expected = "a database that can be opened"
        hint = "does the server run, are host, user and database right, and is the password in ~/.pgpass?"
    return ConfigError("--storage", expected=expected, got=_in_words(error), hint=hint)


def _in_words(error: BaseException) -> str:
    """What the driver says, of all that was made of it since."""
    *_, first = _chain(error)
    lines = str(first).strip().splitlines() or [""]
    return f"{type(first).__name__}: {lines[0]}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came of, what that came of, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
