"""Lines that the user types."""

import sys
from collections.abc import Iterator
from contextlib import suppress


def typed_lines(hint: str) -> Iterator[str]:
    """Lines of standard input; at a terminal each is asked for, Ctrl-C gives up a line, and Ctrl-D ends.

    Args:
        hint: What Ctrl-C shows.
    """
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with suppress(ImportError):  # the arrow keys, where Python has it
        import readline  # noqa: F401
    with suppress(EOFError):
        while True:
            yield _asked(hint)
    print()


def _asked(hint: str) -> str:
    try:
        return input("> ")
    except KeyboardInterrupt:
        print(f"\n{hint}")
        return ""
