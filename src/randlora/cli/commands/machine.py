"""What works on this machine, and a demonstration of it."""

import argparse
from collections.abc import Sequence
from typing import Any

from randlora.cli.commands.needs import require
from randlora.errors import RandLoraError


def add_to(actions: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands."""
    parser = actions.add_parser("doctor", help="versions, devices, what works here", allow_abbrev=False)
    parser.set_defaults(call=doctor)

    parser = actions.add_parser("demo", help="a small CLIP, adapted to handwritten digits by four methods")
    parser.add_argument("--output", default="demo-run", help="folder for the runs, the table, the picture and the page")
    parser.add_argument("--language", action="store_true", help="a small language model in its place, by three methods")
    parser.set_defaults(call=demo)


def doctor(_arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora doctor`; exit code 2 where something does not work."""
    from randlora.training.doctor import examine

    checks = examine()
    width = max(len(name) for name, _, _ in checks)
    for name, found, well in checks:
        print(f"{'ok ' if well else 'BAD'}  {name:<{width}}  {found}")
    if not all(well for _, _, well in checks):
        raise RandLoraError("doctor", expected="all checks to pass", hint="the lines marked BAD say what does not work")
    return 0


def demo(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora demo [--language]`."""
    if arguments.language:
        require("trl")
        from randlora.demo.language import run_language_demo

        run_language_demo(arguments.output)
        return 0
    require("matplotlib", "sklearn", "jinja2")
    from randlora.demo import run_demo

    run_demo(arguments.output)
    return 0
