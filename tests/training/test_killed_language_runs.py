"""Language models: a run that was interrupted, or killed from outside, ends with the bits of one that was not."""

import json
import os
import signal
import time
from dataclasses import asdict, replace
from itertools import islice, product
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from processes import TOOL, Child
from randlora.training import MethodConfig, PreferenceData, Record, train
from randlora.training.run.folder import RunFolder, as_dict

pytestmark = pytest.mark.slow

MEASURED = ("started", "train_seconds", "step_seconds_median", "peak_memory_bytes")
"""What a record says of the machine's time and memory, which no two runs share."""


@pytest.fixture
def run_of(sft_config, tmp_path):
    """A config of a task, packed or not, on a base that is quantized or not."""

    def make(task, quantization, *, packing=False):
        if quantization is not None:
            pytest.importorskip({"nf4": "bitsandbytes", "int8": "torchao"}[quantization])
        data = replace(sft_config.data, packing=packing)
        if task == "preference":
            words = ["".join(word) for word in islice(product("abcd", repeat=3), 0, 48, 2)]
            rows = [{"prompt": word, "chosen": f" {word}", "rejected": " zzz"} for word in words]
            (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
            data = PreferenceData(train=str(tmp_path / "pairs.jsonl"), max_length=32, validation=4)
        optimization = replace(sft_config.optimization, batch_size=4, save_steps=2, max_steps=10)
        method = replace(sft_config.method, dropout=0.1)
        return replace(
            sft_config, task=task, quantization=quantization, data=data, optimization=optimization, method=method
        )

    return make


def tensors(folder):
    return load_file(Path(folder) / "adapter" / "adapter_model.safetensors")


def require_same(first, second):
    """Check that two runs have the same adapter, losses and record, to the bit."""
    ours, theirs = tensors(first), tensors(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    found = []
    for folder in (first, second):
        record = asdict(Record.load(Path(folder)))
        assert all(record.pop(name) for name in MEASURED)
        found.append(record)
    assert found[0] == found[1]
    assert len([entry for entry in found[0]["history"] if "loss" in entry]) > 1
    assert not (Path(second) / "checkpoints").exists()


@pytest.mark.parametrize(
    ("task", "packing", "quantization"),
    [
        ("sft", False, None),
        ("sft", True, None),
        ("sft", True, "nf4"),
        ("sft", False, "int8"),
        ("preference", False, None),
        ("preference", False, "nf4"),
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(run_of, tmp_path, interrupted, task, packing, quantization):
    config = run_of(task, quantization, packing=packing)
    train(replace(config, output=str(tmp_path / "whole")))
    interrupted(config, 5)
    train(config)
    require_same(tmp_path / "whole", config.output)


def test_an_interrupted_run_that_began_with_another_ends_with_the_same_bits(run_of, tmp_path, interrupted):
    first = run_of("sft", "nf4")
    train(replace(first, output=str(tmp_path / "first")))
    config = replace(run_of("preference", "nf4"), start_from=str(tmp_path / "first"), method=MethodConfig())
    train(replace(config, output=str(tmp_path / "whole")))
    interrupted(config, 5)
    train(config)
    require_same(tmp_path / "whole", config.output)


def started(config, folder):
    """`randlora train` on a config, in a process of its own."""
    path = folder / f"{Path(config.output).name}.yaml"
    path.write_text(yaml.safe_dump(as_dict(config)), encoding="utf-8")
    return Child(TOOL, ["train", path], folder=folder)


def finish(config, folder):
    child = started(config, folder)
    assert child.wait() == 0, child.errors


def kill(config, folder, moment):
    """Kill `randlora train` from outside, as an operating system without memory does."""
    child = started(config, folder)
    try:
        wait_for(moment, RunFolder(config.output).checkpoints, child)
    finally:
        child.process.kill()
    assert child.wait() == -signal.SIGKILL, child.errors


def wait_for(moment, checkpoints, child):
    while child.process.is_alive():
        found = list(checkpoints.glob("checkpoint-*"))
        unfinished = [path for path in found if not (path / "progress.json").is_file()]
        whole = [path for path in found if path not in unfinished]
        if moment == "between checkpoints" and whole:
            time.sleep(os.getpid() % 30 / 100)  # anywhere: in a step, or in the next checkpoint
            return
        if moment == "in a checkpoint" and whole and unfinished:
            os.kill(child.process.pid, signal.SIGSTOP)  # it may have written its last file since
            if not (unfinished[0] / "progress.json").is_file() and unfinished[0].is_dir():
                return
            os.kill(child.process.pid, signal.SIGCONT)
    pytest.fail(f"not killed {moment}: {child.errors}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("task", "packing", "quantization", "moment"),
    [
        ("sft", True, "nf4", "between checkpoints"),
        ("preference", False, None, "in a checkpoint"),
    ],
)
def test_a_killed_process_ends_with_the_same_bits(run_of, tmp_path, task, packing, quantization, moment):
    config = run_of(task, quantization, packing=packing)
    config.optimization = replace(config.optimization, max_steps=60)
    finish(replace(config, output=str(tmp_path / "whole")), tmp_path)
    kill(config, tmp_path, moment)
    assert RunFolder(config.output).checkpoint() is not None
    assert not (Path(config.output) / "record.json").exists()
    finish(config, tmp_path)
    require_same(tmp_path / "whole", config.output)
