import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from processes import Child
from randlora.training import train
from randlora.training.run.folder import RunFolder, as_dict
from randlora.training.run.progress import Progress

# Dies by SIGKILL at the end of a step, or while it writes checkpoint-4.
CHILD = """
import os, signal, sys
from randlora.training import load_config, train
from randlora.training.run.progress import Progress
from randlora.training.run.stopwatch import Stopwatch

def die():
    os.kill(os.getpid(), signal.SIGKILL)

moment = sys.argv[2]
save, step_end = Progress.save, Stopwatch.on_step_end

def on_step_end(self, args, state, control, **kwargs):
    if moment == f"step {state.global_step}":
        die()
    return step_end(self, args, state, control, **kwargs)

def save_or_die(self, checkpoint):
    if moment == "in a checkpoint" and checkpoint.name == "checkpoint-4":
        die()
    save(self, checkpoint)

Stopwatch.on_step_end, Progress.save = on_step_end, save_or_die
train(load_config(sys.argv[1]))
"""


def killed(config, moment, folder):
    """Run a config in a process of its own until it is killed."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(as_dict(config)), encoding="utf-8")
    child = Child(CHILD, [path, moment], folder=folder)
    assert child.wait() == -signal.SIGKILL, child.errors


def tensors(output):
    (path,) = (Path(output) / "adapter").glob("*.safetensors")
    return load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "method", "options", "moment", "resumed_from"),
    [
        ("text", "randlora", {"save_steps": 2}, "step 5", 4),
        ("text", "randlora", {"save_steps": 2, "data.group_by_length": True}, "step 9", 8),
        ("text", "full", {"save_steps": 2}, "in a checkpoint", 2),
        ("text", "lora", {}, "step 8", 6),  # 6 steps are an epoch
        ("image", "randlora", {"save_steps": 2}, "step 5", 4),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(kind, method, options, moment, resumed_from, request, tmp_path):
    config = request.getfixturevalue(f"{kind}_config")
    config.method.name = method
    options = dict(options)
    if options.pop("data.group_by_length", False):
        config.data.group_by_length = True
    config.optimization = replace(config.optimization, **options)
    whole = train(replace(config, output=str(tmp_path / "whole")))
    killed(config, moment, tmp_path)
    output = Path(config.output)
    assert RunFolder(output).checkpoint().name == f"checkpoint-{resumed_from}"
    resumed = train(config)
    first, second = tensors(tmp_path / "whole"), tensors(output)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.metrics == pytest.approx(whole.metrics, rel=1e-6)
    assert not (output / "checkpoints").exists()


def test_a_run_killed_before_its_first_checkpoint_starts_anew(text_config, tmp_path):
    text_config.optimization.max_steps = 2
    whole = train(replace(text_config, output=str(tmp_path / "whole")))
    record = train(text_config)
    (Path(text_config.output) / "record.json").unlink()  # as if killed before the last act, checkpoints gone
    assert train(text_config).metrics == record.metrics == whole.metrics


@pytest.fixture
def checkpoints(tmp_path):
    """A run's folder with two checkpoints, 2 and 10, each with some files."""
    for step in (2, 10):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        for name in ("optimizer.pt", "trained.safetensors"):
            (folder / name).write_text(f"{name} of {step}", encoding="utf-8")
        Progress("today").save(folder)
    return tmp_path


def test_the_newest_whole_checkpoint_is_used(checkpoints, tmp_path):
    (checkpoints / "checkpoints" / "checkpoint-12").mkdir()  # killed before its end
    (checkpoints / "checkpoints" / "checkpoint-mine").mkdir()
    assert RunFolder(checkpoints).checkpoint().name == "checkpoint-10"
    assert RunFolder(tmp_path / "none").checkpoint() is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "optimizer.pt").unlink(), r"optimizer\.pt is missing"),
        (lambda folder: (folder / "optimizer.pt").write_bytes(b""), r"optimizer\.pt is not what was written"),
        (lambda folder: (folder / "trained.safetensors").write_text("x"), "trained.safetensors is not"),
        (lambda folder: (folder / "scheduler.pt").write_text("x"), "scheduler.pt is not what was written"),
        (lambda folder: (folder / "progress.json").write_text(""), r"progress\.json cannot be read"),
        (lambda folder: (folder / "progress.json").write_text("[1]"), r"progress\.json cannot be read"),
        (lambda folder: (folder / "progress.json").write_text('{"files": 3}'), r"progress\.json is"),
        (lambda folder: (folder / "progress.json").unlink(), "not written to its end"),
        (lambda folder: (folder / "progress.json").write_bytes(b"\xff\xfe"), r"progress\.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_line(checkpoints, damage, message, caplog):
    damage(checkpoints / "checkpoints" / "checkpoint-10")
    assert RunFolder(checkpoints).checkpoint().name == "checkpoint-2"
    assert re.search(message, caplog.text)
    damage(checkpoints / "checkpoints" / "checkpoint-2")
    assert RunFolder(checkpoints).checkpoint() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(text_config, tmp_path, name, caplog):
    text_config.optimization = replace(text_config.optimization, save_steps=2)
    whole = train(replace(text_config, output=str(tmp_path / "whole")))
    killed(text_config, "step 5", tmp_path)
    newest = RunFolder(text_config.output).checkpoint()
    assert newest.name == "checkpoint-4"
    (newest / name).unlink()
    resumed = train(text_config)
    assert f"{name} is missing" in caplog.text
    first, second = tensors(tmp_path / "whole"), tensors(text_config.output)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert resumed.metrics == pytest.approx(whole.metrics, rel=1e-6)
