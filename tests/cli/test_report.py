"""`randlora report` on what it cannot report: one line, exit code 2, nothing written."""

import os

import pytest

from made_runs import made_run
from refusals import refused


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "run")


def test_what_cannot_be_reported_is_refused_in_one_line(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    unfinished = made_run(tmp_path / "unfinished")
    (unfinished / "record.json").unlink()
    broken = made_run(tmp_path / "broken")
    (broken / "record.json").write_text("[]")
    unlogged = made_run(tmp_path / "unlogged", history=[{"loss": "none", "step": step} for step in range(1000)])
    line = refused(capsys, "report", unlogged, "--output", tmp_path / "out")
    assert "history: expected a list of names with a number each" in line
    assert len(line) < 1000
    out = ("--output", tmp_path / "out")
    for words, message in [
        ((tmp_path / "empty",), "no run in it"),
        ((run, tmp_path / "empty"), "no run in it"),
        ((tmp_path / "nothing",), "nothing there"),
        ((run / "record.json",), "a file"),
        ((unfinished,), "finished run, got none there"),
        ((broken,), "finished run"),
        ((), "required"),
    ]:
        assert message in refused(capsys, "report", *words, *out), words
        assert not (tmp_path / "out").exists()
    assert "thesis.txt" in refused(capsys, "report", run, "--output", tmp_path / "mine")
    assert "thesis.txt, which is a file" in refused(
        capsys, "report", run, "--output", tmp_path / "mine" / "thesis.txt" / "page"
    )
    for words in ((run, "--output", "n" * 300), ("n" * 5000,)):
        assert "letters" in refused(capsys, "report", *words)
    assert "config.yaml" in refused(capsys, "report", run, "--output", run)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_a_folder_without_the_right_to_write_is_refused_before_anything_is_read(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    assert "may not be written" in refused(capsys, "report", run, "--output", tmp_path / "out" / "deeper")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_one_line(run, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jinja2" else object())
    assert "randlora[report]" in refused(capsys, "report", run)
