"""Two processes train what one does: DDP on CPUs, by gloo."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from processes import Child
from randlora.errors import OutputError
from randlora.training import OptimizationConfig, PreferenceData, train
from randlora.training.run.folder import as_dict
from randlora.training.run.progress import Progress, resumed

pytestmark = pytest.mark.slow

SEVERAL = "import sys\nfrom randlora.cli import main\nsys.exit(max(main(['train', path]) for path in sys.argv[1:]))\n"
"""`randlora train` for one config after the other, as a launcher would start it."""


@pytest.fixture
def launch(tmp_path):
    """Train configs in two processes, as a launcher does; the processes, which have ended."""

    def run(*configs):
        paths = []
        for number, config in enumerate(configs):
            paths.append(tmp_path / f"{number}.yaml")
            paths[-1].write_text(yaml.safe_dump(as_dict(config)), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        places = [{**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        children = [Child(SEVERAL, paths, folder=tmp_path, **place) for place in places]
        assert [child.wait() for child in children] == [0, 0], [child.errors for child in children]
        return children

    return run


@pytest.fixture
def of_every_kind(sft_config, text_config, conversations, tmp_path):
    """Runs whose scores are means over examples, pairs and tokens, on test data that two processes cannot halve."""
    test = conversations / "test.jsonl"
    test.write_text("".join(test.read_text(encoding="utf-8").splitlines(keepends=True)[:7]), encoding="utf-8")
    for split in ("train", "test"):
        rows = [json.loads(line)["messages"] for line in (conversations / f"{split}.jsonl").open(encoding="utf-8")]
        pairs = [
            {"prompt": [ask], "chosen": [say], "rejected": [{**say, "content": ask["content"]}]} for ask, say in rows
        ]
        lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
        (tmp_path / f"{split}-pairs.jsonl").write_text(lines, encoding="utf-8")
    csv = Path(text_config.data.test)
    csv.write_text("".join(csv.read_text(encoding="utf-8").splitlines(keepends=True)[:12]), encoding="utf-8")
    pairs = PreferenceData(train=str(tmp_path / "train-pairs.jsonl"), test=str(tmp_path / "test-pairs.jsonl"))
    own = OptimizationConfig(**{**vars(sft_config.optimization), "epochs": 1, "eval_batch_size": 4})
    metrics = replace(sft_config.data, metrics=["exact_match"])
    return {
        "sft": replace(sft_config, data=metrics, optimization=own),
        "preference": replace(sft_config, task="preference", data=replace(pairs, max_length=64), optimization=own),
        "text": replace(text_config, optimization=own),
    }


@pytest.fixture
def without_dropout(bert):
    """Processes draw each their own."""
    path = bert / "config.json"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace('_dropout_prob": 0.1', '_dropout_prob": 0.0'), encoding="utf-8")
    yield
    path.write_text(before, encoding="utf-8")


@pytest.mark.usefixtures("without_dropout")
def test_two_processes_train_what_one_does(of_every_kind, launch, tmp_path):
    together = {name: replace(config, output=str(tmp_path / f"{name}-2")) for name, config in of_every_kind.items()}
    for config in together.values():
        config.optimization = replace(config.optimization, batch_size=4)
    children = launch(*together.values())
    assert [child.output.count("trained numbers") for child in children] == [3, 0]
    for name, config in of_every_kind.items():
        alone, folder = train(replace(config, output=str(tmp_path / name))), Path(together[name].output)
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        assert record["metrics"] == pytest.approx(alone.metrics, rel=1e-4), name
        losses = [
            [step["loss"] for step in history if "loss" in step] for history in (alone.history, record["history"])
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), name
        assert sorted(path.name for path in folder.iterdir()) == ["adapter", "config.yaml", "record.json"]
        of_one, of_two = (
            load_file(path / "adapter" / "adapter_model.safetensors") for path in (tmp_path / name, folder)
        )
        assert of_one.keys() == of_two.keys()
        for key, tensor in of_one.items():
            torch.testing.assert_close(of_two[key], tensor, rtol=1e-2, atol=1e-4)


def test_a_checkpoint_of_two_processes_is_not_for_one(tmp_path):
    Progress("now", processes=2).save(tmp_path)
    assert resumed(tmp_path, 2).processes == 2
    with pytest.raises(OutputError, match=r"as many processes as wrote .*, 2, got 1"):
        resumed(tmp_path, 1)
