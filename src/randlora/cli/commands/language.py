"""Language models: generate, chat, serve."""

import argparse
from typing import Any


def add_to(actions: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands."""
