"""Words for the user's terminal: one line each, with nothing in it that a terminal would obey."""

import logging
import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from difflib import get_close_matches

_LOGGER = logging.getLogger("randlora")


def printable(text: str) -> str:
    r"""Write out every character that does not print: control characters, lone surrogates, marks of direction.

    Args:
        text: Any string; file names and labels come from strangers.

    Example:
        >>> printable("a\x1b[31m")
        'a\\x1b[31m'
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def short(text: str, longest: int = 60) -> str:
    """A text of one line that prints, cut in its middle where it has more letters than that.

    Example:
        >>> short("a name that goes on and on", 11)
        'a nam…nd on'
    """
    text = " ".join(printable(text).split())
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def note(text: str) -> None:
    """Tell the user what was decided for them, as one line.

    It goes to the logger `randlora`, and so to the terminal's error stream unless the program has a place for logs.
    """
    if not is_first_process():
        return
    bars = sys.modules.get("tqdm")  # where there is none, no bar stands on the line
    with bars.tqdm.external_write_mode(sys.stderr) if bars else nullcontext():
        _LOGGER.warning("%s", printable(" ".join(text.split())))


def is_first_process() -> bool:
    """Whether this process of a distributed run tells the user things; torchrun and accelerate number them in RANK."""
    return os.environ.get("RANK", "0") == "0"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a wrong one was probably meant to be, or None."""
    return next(iter(get_close_matches(word, list(known), n=1)), None)
