"""Commands that must fail: with one line on standard error and nothing else."""

import re

from randlora.cli import main

USER, ANSWER = {"role": "user", "content": "abc"}, {"role": "assistant", "content": "abc abc"}
CHAT = {"messages": [USER, ANSWER]}
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
PLAIN = {"prompt": "a", "completion": "b"}
"""Rows that can be learned, to be spoilt."""


def refused(capsys, *words, code=2):
    """Run a command that must fail with an exit code and one line on standard error, which is returned."""
    capsys.readouterr()
    try:
        found = main([str(word) for word in words])
    except SystemExit as exit_:
        found = exit_.code
    captured = capsys.readouterr()
    visible = [line.rpartition("\r")[2] for line in captured.err.split("\n")]  # a bar is written over
    lines = [line for line in visible if line]
    assert (found, len(lines), captured.out) == (code, 1, ""), captured.err
    assert lines[0].startswith("randlora")
    return lines[0]


def assert_says(line, message):
    assert re.search(message, line), line
