"""What needs no model must not wait for PyTorch: help, the version, and words that argparse refuses."""

import pytest


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["analyze", "cka", "--help"],
        ["study", "run", "--help"],
        ["report"],
        ["trian"],
        ["merge", "run"],
        ["doctor", "--fast"],
    ],
)
def test_words_alone_import_nothing_heavy(in_new_process, words):
    source = "import sys, runpy\n"
    source += f"sys.argv = ['randlora', *{words}]\n"
    source += (
        "try:\n    runpy.run_module('randlora', run_name='__main__')\nexcept SystemExit as end:\n    code = end.code\n"
    )
    source += "heavy = ('torch', 'transformers', 'peft', 'numpy', 'datasets', 'pydantic')\n"
    source += "print([m for m in heavy if m in sys.modules], code)"
    code = 0 if {"--help", "--version"} & set(words) else 2
    assert in_new_process(source).splitlines()[-1] == f"[] {code}"


def test_a_second_interruption_finds_nothing_to_interrupt(in_new_process):
    """To end takes a process a moment, in which Ctrl-C would put a traceback below the line that was said."""
    source = "import os, signal, sys\nfrom randlora.cli import main\n"
    source += "sys.argv = ['randlora', 'study', 'status', 'none.yaml']\n"
    source += "def interrupted(*_):\n    raise KeyboardInterrupt\n"
    source += "sys.modules['randlora.cli.main']._call = interrupted\n"
    source += "code = main()\nos.kill(os.getpid(), signal.SIGINT)\nprint(code)"
    assert in_new_process(source) == "130"
