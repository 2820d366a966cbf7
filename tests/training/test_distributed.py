"""Two processes train what one does: DDP on CPUs, by gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from randlora.training.run.folder import as_dict

pytestmark = pytest.mark.slow

TOOL = "import sys\nfrom randlora.cli import main\nsys.exit(main(sys.argv[1:]))\n"


@pytest.fixture
def launch(tmp_path):
    """Run `randlora train` on a config in a number of processes; its output."""
    (tmp_path / "tool.py").write_text(TOOL, encoding="utf-8")

    def run(config, processes, **optimization):
        path = tmp_path / f"{processes}.yaml"
        content = as_dict(config)
        content["output"] = str(tmp_path / optimization.pop("output", f"run-{processes}"))
        content["optimization"] |= optimization
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        words = [sys.executable, *(launcher if processes > 1 else []), "tool.py", "train", str(path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done, Path(content["output"])

    return run


def test_two_processes_train_what_one_does(sft_config, launch):
    config = sft_config
    config.optimization.batch_size = 8
    one, alone = launch(config, 1)
    two, together = launch(config, 2, batch_size=4)
    assert one.returncode == two.returncode == 0, two.stderr
    assert two.stdout.count("trained numbers") == 1
    records = [json.loads((folder / "record.json").read_text()) for folder in (alone, together)]
    losses = [[entry["loss"] for entry in record["history"] if "loss" in entry] for record in records]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (alone, together))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-2, atol=1e-4)


def test_a_checkpoint_of_two_processes_is_not_for_one(sft_config, launch):
    done, folder = launch(sft_config, 2, save_steps=2, output="run")
    assert done.returncode == 0, done.stderr
    # As if it had been killed: a checkpoint, and no record.
    (folder / "record.json").unlink()
    checkpoint = folder / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    from randlora.training.run.progress import Progress

    Progress("now", processes=2).save(checkpoint)
    done, _ = launch(sft_config, 1, save_steps=2, output="run")
    assert done.returncode == 2
    assert "expected as many processes as wrote checkpoint-2, 2, got 1" in done.stderr
