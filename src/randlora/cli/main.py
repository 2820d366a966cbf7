"""Words of the command line -> one call; errors -> one line and exit code 2."""

import argparse
import errno
import io
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import NoReturn

from randlora import __version__
from randlora.cli import commands
from randlora.cli.commands.needs import missing
from randlora.errors import RandLoraError, out_of_memory
from randlora.messages import closest, is_first_process, printable


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

    commands.add_all(actions)
    return parser


_PATIENCE = 10.0
"""Seconds that another process than the first leaves it, and the launcher, to end the run before it speaks itself."""

_TALKERS = ("torchao", "torch.utils._pytree", "bitsandbytes")
"""Loggers that report at import what this machine has no use for, such as kernels of GPUs."""


def _quieten() -> None:
    """Leave the terminal to the tool's own lines: transformers reports every fresh head as missing weights."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns of its own search for unused parameters
    for name in _TALKERS:  # before the imports that they report on
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as of_transformers

    warnings.simplefilter("ignore")
    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()


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
    if getattr(arguments, "takes_words", None):
        # argparse ends a list of words at the first option, and leaves those behind it over.
        getattr(arguments, arguments.takes_words).extend(word for word in overrides if not word.startswith("-"))
        overrides = [word for word in overrides if word.startswith("-")]
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
        if words is None:  # the process ends, for which it takes a moment: there is nothing left for another Ctrl-C
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not is_first_process():
            return 130
        return _end(
            getattr(arguments, "interrupted", "interrupted; the same command again goes on from the last checkpoint"),
            130,
        )
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
    lack = out_of_memory(error)
    if lack is not None:
        return lack, 2
    if isinstance(error, RandLoraError):
        return str(error), 2
    if _is_lost_connection(error):
        return "another process of the run has ended; the same command again goes on from the last checkpoint", 2
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        start = printable(str(error.filename)[:60])
        return f"{start}…: expected a path that the file system can have, got {len(str(error.filename)):,} letters", 2
    absent = (getattr(error, "name", None) or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if absent and absent != "randlora":  # an extra, which is imported where it is first needed
        return str(missing(absent)), 2
    what = printable(" ".join(f"{type(error).__name__}: {error}".split()))
    return f"{what} (unexpected, and so a fault of randlora's; `randlora --traceback COMMAND` shows its place)", 1


def _is_lost_connection(error: Exception) -> bool:
    """Whether a process of several misses another: gloo's words, or NCCL's class."""
    words = ("Connection closed by peer", "Connection reset by peer")
    return "WORLD_SIZE" in os.environ and (
        type(error).__name__ == "DistBackendError"
        or (isinstance(error, RuntimeError) and any(part in str(error) for part in words))
    )


def _end(message: str, code: int) -> int:
    """Say why the command ends, on a line of its own, below progress bars that it leaves behind.

    What befalls all processes of a run the first one tells; the launcher then ends the others while they wait here.
    """
    if not is_first_process():
        time.sleep(_PATIENCE)
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", [])):
            bar.close()
    print(f"randlora: {message}", file=sys.stderr)
    return code
