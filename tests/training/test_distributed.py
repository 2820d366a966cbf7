"""Two processes train what one does, by gloo: DDP, and FSDP 2 on CPUs that accelerate is told are GPUs."""

import json
import socket
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from processes import Child
from randlora.errors import OutputError
from randlora.training import OptimizationConfig, PreferenceData, Record, train
from randlora.training.run.folder import as_dict
from randlora.training.run.launch import sharding
from randlora.training.run.progress import Progress, resumed

pytestmark = pytest.mark.slow

SEVERAL = "import sys\nfrom randlora.cli import main\nsys.exit(max(main(['train', path]) for path in sys.argv[1:]))\n"
"""`randlora train` for one config after the other, as a launcher would start it."""


@pytest.fixture
def launch(tmp_path):
    """Train configs in two processes, as a launcher does; the processes, which have ended."""

    def run(*configs, source=SEVERAL, codes=(0, 0), **variables):
        paths = []
        for number, config in enumerate(configs):
            paths.append(tmp_path / f"{number}.yaml")
            paths[-1].write_text(yaml.safe_dump(as_dict(config)), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **variables}
        places = [{**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        children = [Child(source, paths, folder=tmp_path, **place) for place in places]
        assert tuple(child.wait() for child in children) == codes, [child.errors for child in children]
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
    quantized = {"int8": replace(sft_config, quantization="int8", optimization=own)} if find_spec("torchao") else {}
    return {
        "sft": replace(sft_config, data=metrics, optimization=own),
        **quantized,
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
    assert [child.output.count("trained numbers") for child in children] == [len(together), 0]
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


TOLD_GPUS = """
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from randlora.training.run import training_run

start = PartialState.__init__


def start_and_tell(self, *args, **kwargs):
    start(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self._shared_state["distributed_type"] = DistributedType.MULTI_GPU


PartialState.__init__ = start_and_tell
training_run.check_launch = lambda config: None
"""
"""Accelerate shards on GPUs only, and so does a run. What shards is torch's, which does it on CPUs too."""

ENDS = """
import os
from randlora.training.run.trainer import RunTrainer

step = RunTrainer.training_step
stop = lambda self, *words: os._exit(9) if self.state.global_step {at} else step(self, *words)
RunTrainer.training_step = stop
"""
"""For `format`: the process ends, as if killed, where a step of this number begins."""


@pytest.mark.parametrize(
    ("kind", "task", "quantization"),
    [
        ("SHARDED_STATE_DICT", "sft", None),
        ("FULL_STATE_DICT", "sft", "nf4"),
        ("SHARDED_STATE_DICT", "preference", None),
    ],
)
def test_two_shards_train_what_one_process_does_after_an_end_between(
    of_every_kind, launch, tmp_path, kind, task, quantization
):
    if quantization:
        pytest.importorskip("bitsandbytes")
    config = replace(of_every_kind[task], quantization=quantization)
    config.data = replace(config.data, general=False)
    sharded = replace(config, output=str(tmp_path / "sharded"))
    sharded.optimization = replace(config.optimization, batch_size=4, save_steps=2)
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": kind}
    fsdp["FSDP_AUTO_WRAP_POLICY"] = "TRANSFORMER_BASED_WRAP"
    launch(sharded, source=TOLD_GPUS + ENDS.format(at="== 3") + SEVERAL, codes=(9, 9), **fsdp)
    launch(sharded, source=TOLD_GPUS + ENDS.format(at="< 2") + SEVERAL, **fsdp)  # it does not begin anew
    alone, folder = train(config), Path(sharded.output)
    assert Record.load(folder).metrics == pytest.approx(alone.metrics, rel=1e-4)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter", "config.yaml", "record.json"]
    of_one, of_two = (
        load_file(Path(path) / "adapter" / "adapter_model.safetensors") for path in (config.output, folder)
    )
    assert of_one.keys() == of_two.keys()
    for key, tensor in of_one.items():
        torch.testing.assert_close(of_two[key], tensor, rtol=1e-2, atol=1e-4)


def test_a_checkpoint_of_two_processes_is_not_for_one(tmp_path):
    Progress("now", processes=2).save(tmp_path)
    assert resumed(tmp_path, 2).processes == 2
    with pytest.raises(OutputError, match=r"as many processes as wrote .*, 2, got 1"):
        resumed(tmp_path, 1)


def test_a_checkpoint_of_shards_is_for_the_same_launch(tmp_path, monkeypatch):
    assert sharding() == ""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    Progress("now", processes=2, sharding=sharding()).save(tmp_path)
    assert resumed(tmp_path, 2, sharding()).sharding == "FSDP with SHARDED_STATE_DICT"
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "FULL_STATE_DICT")
    for other, got in ((sharding(), "FSDP with FULL_STATE_DICT"), ("", "a whole model in every process")):
        with pytest.raises(OutputError, match=rf"the launch: .*, FSDP with SHARDED_STATE_DICT, got {got}"):
            resumed(tmp_path, 2, other)
