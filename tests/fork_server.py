"""Forks processes that have imported what PEFT imports, but neither PEFT nor randlora.

A request is a line of JSON, its answer the exit code: the source, the folder to work in, files for output and errors.
"""

import contextlib
import gc
import json
import os
import sys
import traceback

import torch
import transformers.models.bloom.modeling_bloom
import transformers.pytorch_utils  # noqa: F401

with contextlib.suppress(ImportError):
    import torchao  # noqa: F401


def run(source, folder, files):
    """Run source in this process, the child, and end it."""
    os.chdir(folder)
    for descriptor, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    code = 0
    try:
        exec(compile(source, "source", "exec"), {"__name__": "__main__"})  # noqa: S102 - the tests' own source
    except BaseException:  # noqa: BLE001 - as Python itself ends
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    assert not {"peft", "randlora"} & sys.modules.keys()
    torch.set_num_threads(1)
    gc.freeze()  # a fork that collects garbage neither walks nor copies what it shares
    answers = os.fdopen(os.dup(1), "w")  # a child has its own standard output
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
