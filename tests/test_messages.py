import pytest

from randlora.errors import DataError
from randlora.messages import note, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 表 γ", "naïve 表 γ"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("caf\udce9", r"caf\udce9"),
        ("\x7f\x00", r"\x7f\x00"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, shown):
    assert printable(text) == shown
    error = DataError(text, expected="a", got=text, hint=text)
    assert str(error) == f"{shown}: expected a, got {shown} ({shown})"
    assert error.got == text


def test_a_note_is_one_line_on_the_error_stream(without_randlora):
    source = """
import sys
from randlora.messages import note
sys.stderr = sys.stdout  # what importing says goes elsewhere
note("the head\\n  starts \\x1b[31m anew")
"""
    assert without_randlora(source) == r"the head starts \x1b[31m anew"


def test_a_note_stands_on_a_line_of_its_own_beside_a_bar(without_randlora):
    source = """
import sys
sys.stderr = sys.stdout
from randlora.messages import note
from randlora.tasks.bars import progress_bar
with progress_bar("runs", "run", total=2) as bar:
    bar.update()
    note("one run has failed")
"""
    shown = without_randlora(source).replace("\r", "\n").split("\n")
    assert "one run has failed" in shown


def test_a_note_reaches_a_programs_own_log(caplog):
    note("texts are cut")
    assert [(record.name, record.message) for record in caplog.records] == [("randlora", "texts are cut")]
