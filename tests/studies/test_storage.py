"""What is written down of a queue's place: enough to find it again, and no password."""

import pytest

from randlora.errors import ConfigError
from randlora.studies.storage import place_of


@pytest.mark.parametrize(
    ("storage", "place"),
    [
        (None, "journal"),
        (
            "postgresql://me:secret@host:5432/studies?sslmode=require",
            "postgresql://me@host:5432/studies?sslmode=require",
        ),
        ("postgresql://host/studies?password=secret&sslpassword=secret", "postgresql://host/studies"),
        ("mysql+pymysql://me@host/studies", "mysql+pymysql://me@host/studies"),
        ("sqlite:////data/queue.db", "sqlite:////data/queue.db"),
    ],
)
def test_passwords_are_not_written_down(storage, place):
    assert place_of(storage) == place


def test_a_file_is_known_by_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("sqlite:///queue.db") == f"sqlite:///{tmp_path}/queue.db"


@pytest.mark.parametrize("storage", ["sqlite://", "sqlite:///:memory:", "no-url", "", "postgresql://host:port/studies"])
def test_what_no_other_worker_could_open_is_refused(storage):
    with pytest.raises(ConfigError, match=r"^--storage: expected .* got"):
        place_of(storage)
