"""The command-line tool: parse, call, exit code; what is done lies in the floors below."""

from randlora.cli.main import main

__all__ = ["main"]
