"""Commands that must fail: with one line on standard error and nothing else."""

from randlora.cli import main


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
