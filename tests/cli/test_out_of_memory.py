"""A lack of memory, wherever it comes up and however it is wrapped, is one line that says what to do."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

from randlora.cli import main
from randlora.errors import ConfigError, out_of_memory
from randlora.tasks.sources import load
from randlora.training.run.folder import as_dict
from randlora.training.run.trainer import RunTrainer

ON_A_GPU = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.25 GiB is free."
    " Including non-PyTorch memory, this process has 77.84 GiB memory in use."
)


def too_much(*_, **__):
    return torch.empty(2**50, dtype=torch.uint8)


def fail(*_, **__):
    raise ON_A_GPU


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name"),
    [(RunTrainer, "compute_loss"), (AutoModelForSequenceClassification, "from_pretrained"), (RunTrainer, "evaluate")],
)
@pytest.mark.parametrize(
    ("lack", "words"),
    [
        (too_much, "can't allocate memory: you tried to allocate 1125899906842624 bytes"),
        (fail, "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.25 GiB is free ("),
    ],
)
def test_a_training_says_what_takes_less(text_config, tmp_path, monkeypatch, capsys, place, name, lack, words):
    monkeypatch.setattr(place, name, lack)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(as_dict(text_config)), encoding="utf-8")
    assert main(["train", str(config)]) == 2
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "randlora: " in line]
    assert len(lines) == 1
    assert lines[0].startswith("randlora: out of memory: got ")
    assert words in lines[0]
    assert "a smaller optimization.batch_size" in lines[0]
    assert not (Path(text_config.output) / "record.json").exists()


def test_only_what_came_of_it_is_one():
    with pytest.raises(ConfigError) as wrapped:
        load(fail, "nobody/nothing", what="weights")
    assert out_of_memory(wrapped.value) == out_of_memory(ON_A_GPU)
    assert out_of_memory(MemoryError()).startswith("out of memory (in a training")
    assert out_of_memory(RuntimeError("CUDA error: out of memory")) is not None
    assert out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")) is not None
    assert out_of_memory(ValueError("label 'out of memory' is unknown")) is None
    assert out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
