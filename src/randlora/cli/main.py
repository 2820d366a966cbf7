"""Words of the command line -> one call; errors -> one line and exit code 2."""

import argparse
import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from randlora import __version__
from randlora.cli import commands
from randlora.errors import RandLoraError
from randlora.messages import closest, printable


class _Parser(argparse.ArgumentParser):
    """argparse, with one line in place of its usage message."""

    def error(self, message: str) -> NoReturn:
        chosen = re.search(r"argument COMMAND: invalid choice: '(.*?)'", message)
        near = closest(chosen[1], commands.NAMES) if chosen else None
        near = f"; did you mean {near!r}?" if near else ""
        self.exit(2, f"{self.prog}: {message}{near} (see '{self.prog} --help')\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="randlora", description="Full-rank fine-tuning at a low-rank price.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"randlora {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    actions = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    train = actions.add_parser(
        "train",
        help="train as a config file says; the same command again resumes",
        epilog="Any key of the config can be given as --key value, nested ones as --section.key value; "
        "'randlora train --keys' lists them.",
        allow_abbrev=False,
    )
    train.add_argument("config", nargs="?", help="YAML file")
    train.add_argument("--keys", action="store_true", help="list the config's keys and stop")
    train.set_defaults(call=commands.train, takes_overrides=True)

    search = actions.add_parser(
        "search", help="find the best learning rate on the validation split, and score test with it", allow_abbrev=False
    )
    search.add_argument("config", help="YAML file")
    search.add_argument("--rates", required=True, help="learning rates to begin with, such as 1e-3,3e-3,1e-2")
    search.add_argument("--seeds", default="0", help="seeds of the runs at the best rate, such as 0,1,2")
    search.set_defaults(call=commands.search, takes_overrides=True)

    evaluate = actions.add_parser("evaluate", help="measure a finished run", allow_abbrev=False)
    evaluate.add_argument("run", help="a run's folder")
    evaluate.add_argument("--split", choices=("test", "validation"), default="test", help="which data to score")
    _add_trust(evaluate)
    evaluate.set_defaults(call=commands.evaluate, takes_overrides=True)

    merge = actions.add_parser("merge", help="merge an adapter into its base model", allow_abbrev=False)
    merge.add_argument("source", help="a run's folder, or an adapter folder")
    merge.add_argument("--output", required=True, help="folder to write, new or empty")
    merge.add_argument("--model", help="where the base model is, if not where training had it")
    _add_trust(merge)
    merge.set_defaults(call=commands.merge)

    convert = actions.add_parser(
        "convert", help="PEFT's RandLora adapter to ours, or back; or to LoRA", allow_abbrev=False
    )
    convert.add_argument("source", help="an adapter folder; for LoRA also a run's folder")
    convert.add_argument("--output", required=True, help="folder to write, new or empty")
    convert.add_argument("--to", choices=("lora",), help="write the nearest LoRA of a rank in place of an exact copy")
    convert.add_argument("--rank", type=int, help="the LoRA's rank")
    convert.add_argument("--model", help="for LoRA: where the base model is, if not where training had it")
    _add_trust(convert)
    convert.set_defaults(call=commands.convert)

    inspect = actions.add_parser("inspect", help="layers, numbers, ranks and bytes", allow_abbrev=False)
    inspect.add_argument("target", help="an adapter folder, a run's folder, or a config file of a planned run")
    _add_trust(inspect)
    inspect.set_defaults(call=commands.inspect, takes_overrides=True)

    methods = actions.add_parser("methods", help="equation, cost and rank of every method", allow_abbrev=False)
    methods.set_defaults(call=commands.methods)

    doctor = actions.add_parser("doctor", help="versions, devices, what works here", allow_abbrev=False)
    doctor.set_defaults(call=commands.doctor)

    demo = actions.add_parser("demo", help="a small CLIP, adapted to handwritten digits by four methods")
    demo.add_argument("--output", default="demo-run", help="folder for the runs, the table and the picture")
    demo.set_defaults(call=commands.demo)
    return parser


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")


def _quieten() -> None:
    """Leave the terminal to the tool's own lines: transformers reports every fresh head as missing weights."""
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def main(words: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        words: Command line without the program's name; None takes the process's.

    Returns:
        0, or 2 after an error that the user can mend, 1 after one that is ours, 130 after an interruption, 141 where
        nobody reads the output any more.
    """
    _settle_streams()
    arguments, overrides = _parser().parse_known_args(words)
    if overrides and not getattr(arguments, "takes_overrides", False):
        _parser().error(f"{arguments.command}: unknown argument {overrides[0]!r}")
    if not arguments.traceback:
        _quieten()
    try:
        return _call(arguments, overrides)
    except BrokenPipeError:  # as of `randlora methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _end("interrupted; the same command again goes on from the last checkpoint", 130)
    except Exception as error:
        if arguments.traceback:
            raise
        return _end(*_explain(error))


def _settle_streams() -> None:
    """A console that has no Δ shows a code for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _call(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    code: int = arguments.call(arguments, overrides)
    sys.stdout.flush()
    return code


def _explain(error: Exception) -> tuple[str, int]:
    """The line for an error, and the exit code."""
    if isinstance(error, RandLoraError):
        return str(error), 2
    if isinstance(error, MemoryError):
        return "out of memory", 2
    what = printable(" ".join(f"{type(error).__name__}: {error}".split()))
    return f"{what} (unexpected, and so a fault of randlora's; --traceback shows where it comes from)", 1


def _end(message: str, code: int) -> int:
    """Say why the command ends, on a line of its own, below progress bars that it leaves behind."""
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", [])):
            bar.close()
    print(f"randlora: {message}", file=sys.stderr)
    return code
