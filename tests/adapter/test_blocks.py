"""`layers_to_transform`: which blocks are adapted, for every way of naming layers and every architecture's blocks."""

import peft
import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from networks import bert, gpt2, llama, random_config
from randlora import fit_rank
from randlora.adapter import AdapterLayer
from randlora.adapter.kinds import StackedWeight
from randlora.errors import ConfigError


def t5():
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**sizes))


def names(model):
    found = set()
    for name, layer in model.base_model.model.named_modules():
        if isinstance(layer, AdapterLayer):
            base = layer.get_base_layer()
            found.add(f"{name.split('.updates.')[0]}.{base.name}" if isinstance(base, StackedWeight) else name)
    return found


def on(build, **options):
    return names(peft.get_peft_model(build(), random_config(**options)))


MODELS = {
    "llama": (llama, "model.layers", ["q_proj", "up_proj"]),
    "bert": (bert, "bert.encoder.layer", ["query", "dense"]),
    "gpt2": (gpt2, "transformer.h", ["c_attn", "c_fc"]),
    "gpt2 without head": (lambda: gpt2().transformer, "h", ["c_attn", "c_fc"]),
}


@pytest.mark.parametrize("blocks", [1, [1], [0, 1], (0,)])
@pytest.mark.parametrize("with_pattern", [False, True])
@pytest.mark.parametrize("form", ["list", "expression", "all-linear"])
@pytest.mark.parametrize("name", MODELS)
def test_blocks_are_chosen_however_the_layers_are_named(name, form, with_pattern, blocks):
    build, prefix, targets = MODELS[name]
    chosen = [blocks] if isinstance(blocks, int) else blocks
    given = {"list": targets, "expression": rf".*\b({'|'.join(targets)})", "all-linear": "all-linear"}[form]
    every = on(build, target_modules=given)
    pattern = {"layers_pattern": prefix.rsplit(".", 1)[-1]} if with_pattern else {}
    found = on(build, target_modules=given, layers_to_transform=blocks, **pattern)
    prefixes = tuple(f"{prefix}.{block}." for block in chosen)
    assert found == {layer for layer in every if layer.startswith(prefixes)}
    assert found


def test_the_block_is_the_first_number_unless_a_pattern_says_which():
    net = nn.ModuleDict(
        {"stages": nn.ModuleList(nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(3, 3)] * 1)}) for _ in range(3))}
    )
    for stage in net["stages"]:
        stage["blocks"].append(nn.Linear(3, 3))
    options = {"target_modules": r".*blocks\.\d", "layers_to_transform": 1}
    assert on(lambda: net, **options) == {"stages.1.blocks.0", "stages.1.blocks.1"}
    plain = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)))
    assert on(lambda: plain, target_modules="all-linear", layers_to_transform=[1]) == {"1.0"}


def test_a_pattern_chooses_the_list():
    net = nn.ModuleDict(
        {"up": nn.ModuleDict({"blocks": nn.ModuleList(nn.ModuleDict({"q": nn.Linear(3, 3)}) for _ in range(2))})}
    )
    outer = nn.ModuleList([nn.ModuleDict({"stage": net}), nn.Identity()])
    options = {"target_modules": r".*\.q", "layers_to_transform": [1], "layers_pattern": ["absent", "blocks"]}
    assert on(lambda: outer, **options) == {"0.stage.up.blocks.1.q"}


def test_a_layer_in_no_block_is_adapted_by_its_full_name_only():
    options = {"layers_to_transform": [0], "task_type": "CAUSAL_LM"}
    assert on(llama, target_modules=["q_proj", "lm_head"], **options) == {"lm_head", "model.layers.0.self_attn.q_proj"}
    assert on(llama, target_modules=r".*(q_proj|lm_head)", **options) == {"model.layers.0.self_attn.q_proj"}
    full = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]
    assert on(llama, target_modules=full, **options) == {full[0]}


def test_encoder_and_decoder_have_blocks_of_the_same_numbers():
    found = on(t5, target_modules=r".*SelfAttention\.q", layers_to_transform=[1])
    assert found == {f"{side}.block.1.layer.0.SelfAttention.q" for side in ("encoder", "decoder")}
    found = on(t5, target_modules=r".*\.q", layers_to_transform=[1], layers_pattern="layer")
    assert found == {f"decoder.block.{block}.layer.1.EncDecAttention.q" for block in (0, 1)}


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = (nn.Parameter(torch.randn(2, 3, 4)) for _ in range(2))


def experts():
    blocks = (nn.ModuleDict({"experts": Experts(), "q": nn.Linear(3, 3)}) for _ in range(3))
    return nn.ModuleDict({"layers": nn.ModuleList(blocks), "last": Experts()})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layers_to_transform": [0, 2]}, {"layers.0.experts.up", "layers.2.experts.up"}),
        ({"layers_to_transform": 1, "layers_pattern": "layers"}, {"layers.1.experts.up"}),
        (
            {"layers_to_transform": 1, "target_parameters": ["experts.up", "last.down"]},
            {"layers.1.experts.up", "last.down"},
        ),
        ({"exclude_modules": r"layers\.[01]\..*"}, {"layers.2.experts.up"}),
        ({"exclude_modules": ["0.experts"]}, {"layers.1.experts.up", "layers.2.experts.up"}),
        ({"exclude_modules": ["0.experts.up"]}, {"layers.1.experts.up", "layers.2.experts.up"}),
        (
            {"layers_to_transform": [0, 1], "exclude_modules": ["0.experts"], "target_modules": ["q"]},
            {"layers.1.experts.up", "layers.0.q", "layers.1.q"},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:You have passed exclude_modules")
def test_parameters_are_chosen_by_block_and_by_exclusion(options, expected):
    assert on(experts, **{"target_parameters": ["experts.up"], **options}) == expected


@pytest.mark.parametrize("targets", [["q_proj"], r".*q_proj", "all-linear"])
@pytest.mark.parametrize("options", [{"layers_to_transform": [7]}, {"layers_to_transform": 0, "layers_pattern": "h"}])
def test_a_number_of_no_block_is_named(options, targets):
    base = llama()
    with pytest.raises(ConfigError, match=r"layers_to_transform: expected numbers of blocks of the model.*got"):
        peft.get_peft_model(base, random_config(target_modules=targets, **options))
    assert not any(isinstance(module, AdapterLayer) for module in base.modules())


def test_a_budget_counts_the_chosen_blocks_and_a_saved_adapter_has_them(tmp_path):
    def config(**options):
        return random_config(target_modules="all-linear", **options)

    half = fit_rank(config(layers_to_transform=[1]), llama(), lora_rank=2)
    assert half.r == fit_rank(config(), llama(), lora_rank=2).r  # of as many layers as are adapted
    model = peft.get_peft_model(llama(), half)
    model.save_pretrained(tmp_path)
    assert names(peft.PeftModel.from_pretrained(llama(), tmp_path)) == names(model)
