"""Two processes train what one does: DDP on CPUs, by gloo."""

import json
import socket
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from processes import TOOL, Child
from randlora.training.run.folder import as_dict
from randlora.training.run.progress import Progress

pytestmark = pytest.mark.slow


@pytest.fixture
def launch(tmp_path):
    """Run `randlora train` on a config in a number of processes, as a launcher does; the first one and its folder."""

    def run(config, processes, **optimization):
        path = tmp_path / f"{processes}.yaml"
        content = as_dict(config)
        content["output"] = str(tmp_path / optimization.pop("output", f"run-{processes}"))
        content["optimization"] |= optimization
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        world = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        places = [{**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        children = [
            Child(TOOL, ["train", path], folder=tmp_path, **(place if processes > 1 else {})) for place in places
        ]
        codes = [child.wait() for child in children]
        assert len(set(codes)) == 1, [child.errors for child in children]
        return codes[0], children, Path(content["output"])

    return run


def test_two_processes_train_what_one_does(sft_config, launch):
    config = sft_config
    config.optimization.batch_size = 8
    code, _, alone = launch(config, 1)
    assert code == 0
    code, children, together = launch(config, 2, batch_size=4)
    assert code == 0, [child.errors for child in children]
    assert ["trained numbers" in child.output for child in children] == [True, False]
    records = [json.loads((folder / "record.json").read_text()) for folder in (alone, together)]
    losses = [[entry["loss"] for entry in record["history"] if "loss" in entry] for record in records]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (alone, together))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-2, atol=1e-4)


def test_a_checkpoint_of_two_processes_is_not_for_one(sft_config, launch):
    code, children, folder = launch(sft_config, 2, save_steps=2, output="run")
    assert code == 0, [child.errors for child in children]
    # As if it had been killed: a checkpoint, and no record.
    (folder / "record.json").unlink()
    checkpoint = folder / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    Progress("now", processes=2).save(checkpoint)
    code, (child,), _ = launch(sft_config, 1, save_steps=2, output="run")
    assert code == 2
    assert "expected as many processes as wrote checkpoint-2, 2, got 1" in child.errors
