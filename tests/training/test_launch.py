"""What a launcher asks for by its variables: what cannot be is one line, before anything is read."""

import logging
import re
import shlex
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from randlora.errors import ConfigError, DeviceError
from randlora.training import MethodConfig, OptimizationConfig, TrainConfig, train
from randlora.training.run.launch import check_launch

PAGE = Path(__file__).parent.parent.parent / "docs" / "language-models.md"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def config():
    return TrainConfig(task="sft")


def test_fsdp_without_gpus(sft_config, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(DeviceError, match=r"^FSDP: expected GPUs.*got CPUs \(leave --use_fsdp out"):
        train(sft_config)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("version", "asked", "words"),
    [
        (None, {}, "FSDP: expected version 2, got 1"),
        ("2", {"optimization": OptimizationConfig(keep_best=True)}, "keep_best: expected false with FSDP"),
        ("2", {"quantization": "int8"}, "quantization: expected nf4 or null with FSDP, got int8"),
        ("2", {"method": MethodConfig("adalora")}, "method.name: expected one that FSDP can shard, got adalora"),
    ],
)
def test_fsdp_that_is_refused(version, asked, words, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    if version is not None:
        monkeypatch.setenv("FSDP_VERSION", version)
    with pytest.raises(ConfigError, match=words):
        check_launch(replace(config(), **asked))


@pytest.mark.usefixtures("gpu")
def test_fsdp_of_version_2(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    check_launch(config())


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
def test_deepspeed_without_its_package(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(DeviceError, match=r"DeepSpeed: expected its package, got none"):
        check_launch(config())


def test_one_process_in_place_of_several_is_told(monkeypatch, caplog):
    for name, value in (("ACCELERATE_USE_CPU", "True"), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING, logger="randlora"):
        check_launch(config())
        monkeypatch.setenv("WORLD_SIZE", "2")
        check_launch(config())
    assert [record.message for record in caplog.records if "one process trains" in record.message] == [
        "one process trains: 'accelerate launch --cpu' starts others only with MPI; torchrun starts them"
    ]


def test_the_launchers_know_the_pages_words():
    """The page's commands are those of torchrun and accelerate, and what follows them is a config and its keys."""
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    text = PAGE.read_text(encoding="utf-8").partition("## More than one device")[2]
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1].replace("\\\n", " ")
    parsers = {"torchrun": get_args_parser(), "accelerate": launch_command_parser()}
    found = []
    for line in block.splitlines():
        words = shlex.split(line)
        launcher, words = words[0], words[2:] if words[0] == "accelerate" else words[1:]
        parsed = parsers[launcher].parse_args(words)
        assert parsed.module
        assert parsed.training_script == "randlora"
        assert parsed.training_script_args == ["train", "sft.yaml", "--optimization.batch_size", "4"]
        found.append(launcher)
    assert found == ["torchrun", "accelerate", "accelerate"]
