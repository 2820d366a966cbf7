"""A queue in a database of a server, without the server: what it says when it is away, and that it is waited for."""

import multiprocessing

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError, PendingRollbackError, ProgrammingError

from randlora.errors import ConfigError, OutputError
from randlora.studies import database
from randlora.studies.queue import Queue

AT_ONCE = multiprocessing.get_context("fork")


def away(words="the server is starting up"):
    """What Optuna makes of what SQLAlchemy makes of what a driver says."""
    error = StorageInternalError("invalid data, perhaps")
    error.__cause__ = OperationalError("SELECT 1", {}, Exception(words))
    error.__cause__.__cause__ = Exception(words)
    return error


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The queue of a database that passes for one with a server, and a list of errors to come."""
    monkeypatch.setattr(database, "_BETWEEN_SECONDS", 0.01)
    errors = []

    def failing(name, *, behind):
        ordinary = getattr(RDBStorage, name)

        def call(*args, **options):
            if behind and errors:
                ordinary(*args, **options)
                raise errors.pop()
            if errors:
                raise errors.pop()
            return ordinary(*args, **options)

        return call

    found = Queue(tmp_path, "small", f"sqlite:///{tmp_path}/queue.db")
    found._storage._has_server = True
    for name, behind in (("create_new_trial", True), ("get_all_trials", False), ("set_trial_user_attr", True)):
        monkeypatch.setattr(RDBStorage, name, failing(name, behind=behind))
    return found, errors


def test_a_server_that_is_started_again_is_waited_for(server, caplog):
    queue, errors = server
    errors += [away(), PendingRollbackError("Can't reconnect until invalid transaction is rolled back"), away()]
    assert queue.attempts() == []
    assert caplog.text.count("--storage: Exception: the server is starting up; waiting for it, at most 10 min") == 1


def test_what_went_through_though_nobody_heard_of_it_is_not_done_twice(server):
    queue, errors = server
    errors.append(away())
    claimed = queue.claim("x")
    assert claimed is not None
    assert [entry.state for entry in queue.attempts()] == ["dropped", "running"]
    errors.append(away())
    queue.end(claimed, "done", seconds=1.0)
    assert [entry.state for entry in queue.attempts()] == ["dropped", "done"]


def test_one_that_stays_away_is_one_line(server, monkeypatch):
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.05)
    queue, errors = server
    errors += [away()] * 50
    with pytest.raises(OutputError, match=r"--storage: expected a database .* starting up \(the same command again"):
        queue.attempts()


def test_what_no_waiting_mends_is_said_at_once(server):
    queue, errors = server
    errors.append(ProgrammingError("SELECT 1", {}, Exception("permission denied")))
    with pytest.raises(OutputError, match="permission denied"):
        queue.attempts()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql+pg8000://me@host/studies", r"expected the package pg8000, its driver, got none \(pip install pg8"),
        (
            "postgres://me@host/studies",
            r"expected the URL of a database, got .*dialects:postgres \(such as postgresql:",
        ),
        (
            "sqlite:////nowhere/queue.db",
            r"expected a database that can be opened, got OperationalError: unable to open",
        ),
    ],
)
def test_what_cannot_be_opened_is_one_line(tmp_path, url, words):
    with pytest.raises(ConfigError, match=f"^--storage: {words}"):
        Queue(tmp_path, "small", url)


def test_an_empty_database_is_begun_by_many_at_once(tmp_path):
    url = f"sqlite:///{tmp_path}/queue.db"
    workers = [AT_ONCE.Process(target=Queue, args=(tmp_path, "small", url)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert Queue(tmp_path, "small", url).attempts() == []
