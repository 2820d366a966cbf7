"""benchmarks/peft_comparison: its experiments, run as PEFT's comparison runs one, on a tiny Llama."""

import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from randlora.methods import CATALOGUE

FOLDER = Path(__file__).parent.parent / "benchmarks" / "peft_comparison"
EXPERIMENTS = sorted((FOLDER / "experiments").iterdir())

# What run.py is known by from outside: one path of three parts relative to its folder, a config that PEFT reads,
# modules that it imports from beside it.
STAND_IN = """
import argparse, json, pathlib
import beside
import peft

parser = argparse.ArgumentParser()
parser.add_argument("-v", action="store_true")
parser.add_argument("path")
given = parser.parse_args()
parts = pathlib.Path(given.path).parts
assert len(parts) == 3 and parts[0] == "experiments", parts
config = peft.PeftConfig.from_pretrained(given.path)
parameters = json.loads((pathlib.Path(given.path) / "training_params.json").read_text())
found = {"type": config.peft_type.value, "verbose": given.v, "parameters": sorted(parameters), "name": beside.NAME}
pathlib.Path("found.json").write_text(json.dumps(found))
"""


def llama():
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


def test_there_are_five():
    assert len(EXPERIMENTS) == 5


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: folder.name)
def test_an_experiment_loads_attaches_and_trains(folder):
    torch.manual_seed(0)
    config = peft.PeftConfig.from_pretrained(folder)
    parameters = json.loads((folder / "training_params.json").read_text())
    model = peft.get_peft_model(llama().bfloat16(), config)
    optimizer = torch.optim.AdamW(model.parameters(), **parameters["optimizer_kwargs"])
    ids = torch.randint(0, 32, (2, 8))
    losses = []
    for _ in range(8):
        loss = model(input_ids=ids, labels=ids).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    with model.disable_adapter():
        assert model(input_ids=ids, labels=ids).loss.item() == losses[0]


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: folder.name)
def test_numbers_are_those_of_the_lora_in_the_name(folder):
    config = peft.PeftConfig.from_pretrained(folder)
    method = next(method for method in CATALOGUE if method.config is type(config))
    trained = method.trained(config, 3072, 3072) + method.trained(config, 1024, 3072)  # q and v
    lora = int(folder.name.rpartition("rank")[2]) * (6144 + 4096)
    assert trained == pytest.approx(lora, rel=0.02)


def launched(*words):
    """Source that runs launch.py with these command-line words, as Python does."""
    script = str(FOLDER / "launch.py")
    return (
        f"import runpy, sys\nsys.argv = {[script, *map(str, words)]}\nrunpy.run_path({script!r}, run_name='__main__')\n"
    )


@pytest.mark.slow
def test_the_launcher_runs_the_script_of_a_checkout_with_our_types_known(tmp_path, without_randlora):
    comparison = tmp_path / "method_comparison" / "MetaMathQA"
    comparison.mkdir(parents=True)
    (comparison / "run.py").write_text(STAND_IN)
    (comparison / "beside.py").write_text("NAME = 'beside'\n")
    without_randlora(launched(tmp_path, "llama-3.2-3B-hybrid-as-rank32", "-v"))
    found = json.loads((comparison / "found.json").read_text())
    expected = {"type": "RANDLORA_HYBRID", "verbose": True, "parameters": ["optimizer_kwargs"], "name": "beside"}
    assert found == expected


@pytest.mark.slow
def test_a_folder_that_is_no_checkout_is_refused(tmp_path, without_randlora):
    assert "no run.py here" in without_randlora(launched(tmp_path, EXPERIMENTS[0].name), fails=True)
