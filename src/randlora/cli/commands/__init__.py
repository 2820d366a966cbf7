"""The commands, a file for each group: the words that each takes, and the one call of the library that it makes.

Imports of what is called are inside the functions, so that --help does not wait for them.
"""

import argparse
from typing import Any

from randlora.cli.commands import adapters, analyze, language, machine, report, runs, study

NAMES = (
    *("data", "train", "search", "evaluate"),
    *("generate", "chat", "serve"),
    *("merge", "convert", "inspect", "methods"),
    *("study", "analyze", "report"),
    *("doctor", "demo"),
)


def add_all(actions: "argparse._SubParsersAction[Any]") -> None:
    """Add every command to a parser, in the order in which --help lists them."""
    for group in (runs, language, adapters, study, analyze, report, machine):
        group.add_to(actions)
