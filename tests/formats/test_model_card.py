"""The model card: true facts, code that loads the adapter, and nothing that a name can smuggle in."""

import ast
import re

import peft
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from networks import MODELS, Net, bert, llama, random_config, rows, token_ids
from randlora import write_model_card
from randlora.errors import CheckpointError


def saved(base, folder, config, name=None):
    """Save an adapter and its card; the model, the card's metadata, its facts and its Python code."""
    model = peft.get_peft_model(base, config).eval()
    if name is not None:
        model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(folder)
    text = write_model_card(model, folder).read_text(encoding="utf-8")
    _, metadata, body = text.split("---\n", 2)
    facts = dict(re.findall(r"^\| ([a-z ]+) \| (.*) \|$", body, re.MULTILINE))
    (code,) = re.findall(r"^```python\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)
    return model, yaml.safe_load(metadata), facts, code


@pytest.mark.parametrize("name", MODELS)
def test_the_code_loads_the_adapter(tmp_path, monkeypatch, name):
    build, targets, task = MODELS[name]
    build().save_pretrained(tmp_path / "base")
    base = type(build()).from_pretrained(tmp_path / "base")
    config = random_config(target_modules=targets, task_type=task)
    model, _, facts, code = saved(base, tmp_path / "adapter", config)
    monkeypatch.chdir(tmp_path / "adapter")
    names = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - what we have just written
    torch.testing.assert_close(names["model"].eval()(token_ids()).logits, model(token_ids()).logits)
    layers = [m for m in model.modules() if hasattr(m, "randlora_gamma")]
    trained = sum(p.numel() for layer in layers for n, p in layer.named_parameters() if "randlora_" in n)
    assert facts["trained numbers"] == f"{trained:,} in {len(layers)} layers"
    assert ("trained whole" in facts) == (task == "SEQ_CLS")
    assert "Bⱼ Λⱼ A Γⱼ" in facts["update"]
    assert facts["r"] == "4"
    assert facts["alpha"] == "2"


def test_facts_of_other_adapters(tmp_path):
    lora = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["a"])
    _, metadata, facts, code = saved(Net(), tmp_path / "lora", lora, "owner/model")
    assert facts["update"] == "ΔW = (alpha/r)·B·A"
    assert facts["trained numbers"] == f"{3 * (13 + 29)} in 1 layers"
    assert metadata == {"library_name": "peft", "tags": ["randlora"], "base_model": "owner/model"}
    assert "networks.Net" in code  # no class of transformers': the reader builds it
    config = random_config(target_modules=["a"], bases="peft", rank_pattern={}, alpha_pattern={"a": 1.0})
    _, _, facts, _ = saved(Net(), tmp_path / "peft", config)
    assert facts["update"].endswith("g = alpha/r")
    assert facts["alpha"] == "80, by layer in the config"
    assert facts["base model"] == "not recorded"


@pytest.mark.parametrize(
    ("options", "update", "r"),
    [
        ({"use_rslora": True}, "ΔW = (alpha/√r)·B·A", "3"),
        ({"use_dora": True}, "ΔW = magnitude · (W₀ + (alpha/r)·B·A) / its norms - W₀", "3"),
        ({"rank_pattern": {"b": 2}}, "ΔW = (alpha/r)·B·A", "3, by layer in the config"),
    ],
)
def test_a_lora_is_described_as_it_is_scaled(tmp_path, options, update, r):
    config = peft.LoraConfig(r=3, target_modules=["a", "b"], **options)
    _, _, facts, _ = saved(Net(), tmp_path, config)
    assert (facts["update"], facts["r"]) == (update, r)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bases": "ternary", "sparsity": 6.0}, {"bases": "ternary, sparsity 6.0, seed 0"}),
        (
            {"bases": "uniform", "separate_a": True},
            {"update": "ΔW = g · Σⱼ Bⱼ Λⱼ Aⱼ Γⱼ, g = alpha·√r/m^(4/3), m the smaller side"},
        ),
        ({"bases": "uniform", "num_bases": 2}, {"bases of a layer": "2"}),
        ({"bases": "uniform", "rank_fraction": 0.5}, {"rank": "0.5 of the full rank"}),
        ({"bases": "uniform", "terms": 2}, {"terms": "2, such updates on the same bases, summed"}),
    ],
)
def test_what_is_not_the_default_is_told(tmp_path, options, said):
    _, _, facts, _ = saved(Net(), tmp_path, random_config(target_modules=["a", "b"], r=2, **options))
    assert said.items() <= facts.items()


def test_names_from_outside_stay_text(tmp_path):
    evil = 'x`"\u202e\n---\nlicense: mit\n# A | <script>[y](z)\n```\n'
    base = bert()
    base.config.id2label = {0: "<b>pay</b>", 1: "two\n\n# lines", 2: "c"}
    config = random_config(target_modules=["query"], task_type="SEQ_CLS")
    _, metadata, facts, code = saved(base, tmp_path, config, evil)
    assert metadata == {"library_name": "peft", "tags": ["randlora"]}
    assert facts["base model"] == r"x\`\" --- license: mit \# A \| \<script\>\[y\](z) \`\`\`".replace('\\"', '"')
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        f"# Adapter of {facts['base model']}",
        "## Loading",
        "## Classes",
    ]
    assert "\n0. \\<b\\>pay\\</b\\>\n1. two \\# lines\n2. c\n" in text
    literals = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert evil in literals
    assert 3 in literals  # num_labels


def test_saving_again_keeps_the_card(tmp_path):
    llama().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    config = random_config(target_modules=["q_proj"], task_type="CAUSAL_LM")
    model, *_ = saved(base, tmp_path / "adapter", config)
    model.save_pretrained(tmp_path / "adapter")  # PEFT reads the card that is there, and adds to it
    text = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "Bⱼ Λⱼ A Γⱼ" in text
    assert "More Information Needed" not in text


def test_a_folder_without_an_adapter(tmp_path):
    model = peft.get_peft_model(Net(), random_config(target_modules=["a"]))
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        write_model_card(model, tmp_path)
    assert not list(tmp_path.iterdir())
    assert model(rows()).shape == (5, 11)
