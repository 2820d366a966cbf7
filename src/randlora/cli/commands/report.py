"""A report on finished runs, as a page."""

import argparse
from collections.abc import Sequence
from typing import Any

from randlora.cli.commands.needs import require


def add_to(actions: "argparse._SubParsersAction[Any]") -> None:
    """Add the command."""
    parser = actions.add_parser(
        "report", help="one page on finished runs: tables, curves, analyses", allow_abbrev=False
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, or with runs or analyses in them")
    parser.add_argument("--output", default="report", help="folder for the page and its figures (report)")
    parser.set_defaults(call=report, interrupted="interrupted")


def report(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora report RUN… [--output DIR]`."""
    require("pydantic", "datasets", "matplotlib", "jinja2")
    from randlora.report.page.write import write_page

    print(f"written to {write_page(arguments.runs, arguments.output)}")
    return 0
