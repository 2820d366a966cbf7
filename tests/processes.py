"""Processes of their own that need not import PyTorch anew: they are forked from a server that has done it once.

What a test says of a process (killed, alone, one of two) holds for them; what it says of importing does not, nor of the
hash seed: for those there is `in_new_process`.
"""

import contextlib
import gc
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["randlora.cli", "randlora.training", "transformers.trainer", "peft", "trl", "processes"])
# In the server this is the last import: a fork that collects garbage neither walks nor copies what it shares.
gc.freeze()


class Child:
    """A process that runs Python source, with its output and errors in files.

    Args:
        source: What it runs.
        words: Its command-line arguments.
        folder: Where it works and where its output goes.
        variables: Environment variables to add.
    """

    def __init__(self, source: str, words=(), *, folder: Path, **variables: str):
        self._files = [folder / f"{id(self)}.{name}" for name in ("out", "err")]
        for path in self._files:
            path.touch()
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        arguments = (source, [str(word) for word in words], str(folder), [str(f) for f in self._files], variables)
        self.process = _FORKS.Process(target=_work, args=(*arguments, threads))
        # The tests' folder, for a server that starts before anything else has told it.
        with _in_path(Path(__file__).parent):
            self.process.start()

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._files[0].read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """What it has printed to standard error."""
        return self._files[1].read_text(encoding="utf-8")

    def wait(self) -> int:
        """Its exit code; that of a signal is negative."""
        self.process.join()
        return self.process.exitcode


TOOL = "import sys\nfrom randlora.cli import main\nsys.exit(main(sys.argv[1:]))\n"
"""The source of the command-line tool."""


@contextlib.contextmanager
def _in_path(folder: Path):
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _work(source, words, folder, files, variables, threads):
    for descriptor, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.update(variables)
    tempfile.tempdir = None  # the server's, which knew nothing of TMPDIR
    os.chdir(folder)
    sys.argv = ["randlora", *words]

    import torch

    torch.set_num_threads(threads)
    exec(compile(source, "source", "exec"), {"__name__": "__main__"})  # noqa: S102 - the tests' own source
