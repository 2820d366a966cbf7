"""Options of PEFT's tuners: what each gives is what is saved, loaded and merged, or it is refused in one line."""

import dataclasses
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import peft
import pytest
import torch
from peft.tuners.lora.config import BdLoraConfig, LoraRuntimeConfig, VeloraConfig

from every_method import fill
from randlora.analysis.deltas import AdapterDeltas
from randlora.errors import CheckpointError, ConfigError, LayerError
from randlora.formats import export_lora, load_adapter
from randlora.tasks import TextData
from randlora.training import MethodConfig, PreferenceData, TrainConfig, evaluate, load_config, train
from randlora.training.config import resolve
from randlora.training.config.adapter_configs import adapter_config
from randlora.training.config.method_options import options_of
from randlora.training.config.method_table import METHODS
from randlora.training.config.peft_limits import KINDS, WITHOUT
from randlora.training.config.validation import check_method_section
from randlora.training.inspection import inspect_adapter
from randlora.training.merge import merge_adapter
from randlora.training.methods import build
from tiny import SIZES, task_of

OF_PEFT = [name for name, method in METHODS.items() if method.config.__module__.startswith("peft.")]


def resolved(name, options, **keys):
    r = 2 if "r" in METHODS[name].keys else None
    options = {**SIZES.get(name, {}), **options}
    return resolve(TrainConfig(method=MethodConfig(name=name, options=options, **{"r": r, **keys}))).method


@pytest.fixture
def new_task(bert):
    def make():
        return task_of(TrainConfig(model=str(bert), data=TextData(max_length=16)), ["a", "b"])

    return make


def values(name):
    """(option, value) of a tuner, of every one that PEFT's type names or that is true or false."""
    config = METHODS[name].config
    set_otherwise = {*METHODS[name].keys.values(), *METHODS[name].fixed}
    for field in dataclasses.fields(config):
        if field.name in {*set_otherwise, *(entry.name for entry in dataclasses.fields(peft.PeftConfig))}:
            continue
        kind = next((KINDS[part][field.name] for part in config.__mro__ if field.name in KINDS.get(part, {})), None)
        kind = kind or get_type_hints(config)[field.name]
        if field.name == "bias" and kind is str:
            kind = Literal["none", "all", f"{config().peft_type.lower()}_only"]
        for part in (kind, *get_args(kind)):
            choices = get_args(part) if get_origin(part) is Literal else (True, False) if part is bool else ()
            for value in choices:
                refused = any(field.name in WITHOUT.get(part, {}) for part in config.__mro__)
                if value != field.default and not refused:
                    yield field.name, value


# Each value alone, and what a section or a second option makes of it.
FURTHER = [
    ("lora", {"velora_config": {"num_groups": 4}}),
    ("lora", {"velora_config": {"num_groups": 4, "init_type": "random"}}),
    ("lora", {"use_bdlora": {"target_modules_bd_a": ["query"], "nblocks": 2, "match_strict": False}}),
    ("lora", {"trainable_token_indices": [3, 4]}),
    ("lora", {"trainable_token_indices": {"word_embeddings": [3, 4]}}),
    ("lora", {"rank_pattern": {r"layer\.0\..*query": 3}, "alpha_pattern": {"query$": 5.5}}),
    ("pissa", {"rank_pattern": {"query": 3}, "bias": "all", "use_rslora": True}),
    ("dora", {"init_lora_weights": "olora"}),
    ("osf", {"rank_pattern": {"query": 0.25}}),
    ("delora", {"rank_pattern": {"query": 3}, "lambda_pattern": {"key": 5}}),
    ("c3a", {"block_size_pattern": {"query": 2}}),
    ("fourierft", {"n_frequency_pattern": {"query": 5}}),
    ("tinylora", {"init_weights": "uniform"}),
    ("hra", {"apply_GS": True, "init_weights": False}),
]
# Refused, with another option or by PEFT's own word.
REFUSED = [
    ("hra", {"apply_GS": True}),
    ("dora", {"init_lora_weights": "mica"}),
    ("dora", {"lora_bias": True}),
    ("pissa", {"lora_bias": True}),
    ("adalora", {"use_dora": True}),
]
STARTS = ("init_lora_weights", "init_weights", "ab_svd_init", "psoft_svd", "decomposition_method", "use_dora")
CASES = [(name, {option: value}) for name in OF_PEFT for option, value in values(name)]
CASES = [case for case in CASES if case not in REFUSED]


def marked(case):
    """Of what is only read again from the config, a tuner's whole loop is slow."""
    name, options = case
    own = name in ("lora", "pissa") or not isinstance(next(iter(options.values())), bool)
    quick = own and not set(options).isdisjoint(STARTS)
    return pytest.param(*case, marks=() if quick else pytest.mark.slow, id=f"{name}-{options}")


@pytest.mark.parametrize(
    ("name", "options"), [*map(marked, CASES), *(pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in FURTHER)]
)
def test_an_adapter_is_the_same_when_it_is_loaded_on_the_base_model_and_merged(name, options, new_task, tmp_path):
    task = new_task()
    model = build(task, resolved(name, options))
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 7, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}

    def logits(adapted):
        with torch.no_grad():
            return adapted.eval()(**inputs).logits

    with torch.no_grad():
        for number, trained in enumerate(part for part in model.parameters() if part.requires_grad):
            trained.add_(torch.randn(trained.shape, generator=torch.Generator().manual_seed(number)), alpha=0.1)
    model.train()(**inputs)["logits"].sum().backward()  # what a first pass fills in
    adapted = next(part for part in model.modules() if isinstance(part, peft.PeftModel))
    expected = logits(adapted)
    adapted.save_pretrained(tmp_path)
    torch.manual_seed(1234)  # nothing that is drawn at loading may matter
    loaded = load_adapter(new_task().backbone, tmp_path)
    torch.testing.assert_close(logits(loaded), expected)
    if name != "lily":  # whose update depends on the input
        torch.testing.assert_close(logits(merge_adapter(loaded)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_no_option_of_peft_is_taken_unlooked_at(name):
    """A type that is neither YAML's, a section, nor refused would come in with a new version of PEFT."""
    config = METHODS[name].config
    own = {entry.name for entry in dataclasses.fields(peft.PeftConfig)} | {"peft_draw", "adapter"}
    for field in dataclasses.fields(config):
        if field.name not in own and not any(field.name in WITHOUT.get(part, {}) for part in config.__mro__):
            options = {field.name: object()}
            with pytest.raises(ConfigError, match=rf"^method\.(options\.)?{field.name}"):
                options_of(MethodConfig(name=name, options=options))


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("velora_config", {"num_groups": 4, "init_type": "random"}, VeloraConfig(4, init_type="random")),
        ("use_bdlora", {"nblocks": 2, "target_modules_bd_a": ["a"]}, BdLoraConfig(["a"], nblocks=2)),
        ("runtime_config", {"ephemeral_gpu_offload": True}, LoraRuntimeConfig(ephemeral_gpu_offload=True)),
    ],
)
def test_a_section_of_yaml_is_the_class_that_peft_wants(option, value, kind, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"method: {{name: lora, options: {{{option}: {value}}}}}".replace("True", "true"), encoding="utf-8")
    assert getattr(adapter_config(resolve(load_config(path)).method), option) == kind
    name, entry = next(iter(value.items()))
    words = load_config(path, [f"--method.options.{option}.{name}", str(entry)])
    assert getattr(adapter_config(resolve(words).method), option) == kind


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lora", {"init_lora_weights": "pissa_niter_4"}, r"init_lora_weights: .*random draw cannot be made again"),
        ("lora", {"init_lora_weights": "eva"}, r"init_lora_weights: .*a pass over the data"),
        ("lora", {"init_lora_weights": "corda"}, r"init_lora_weights: .*a pass over the data"),
        ("lora", {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, r"see quantization"),
        ("lora", {"init_lora_weights": "lora_ga"}, r"init_lora_weights: .*a pass over the data"),
        (
            "lora",
            {"init_lora_weights": "pisa"},
            r"init_lora_weights: expected true or false or 'gaussian'",
        ),
        ("lora", {"layer_replication": [[0, 2], [1, 2]]}, r"layer_replication: .*share its weights"),
        ("lora", {"kasa_config": {}}, r"kasa_config: .*a term in the loss"),
        ("rslora", {"monteclora_config": {}}, r"monteclora_config: .*a term in the loss"),
        ("lora", {"megatron_config": {"a": 1}}, r"megatron_config: .*Megatron"),
        ("lora", {"use_qalora": True}, r"use_qalora: .*GPTQ"),
        ("lora", {"runtime_config": 3}, r"runtime_config: expected a section"),
        ("lora", {"velora_config": {"num_group": 4}}, r"velora_config\.num_group: .*did you mean .*\.num_groups\?"),
        (
            "lora",
            {"velora_config": {"num_groups": "4"}},
            r"velora_config\.num_groups: expected a whole number",
        ),
        ("lora", {"velora_config": {"num_groups": -1}}, r"velora_config: expected values that PEFT takes"),
        ("lora", {"velora_config": {"init_type": "batch_average_once"}}, r"velora_config\.init_type: expected one of"),
        ("lora", {"trainable_token_indices": [-1]}, r"trainable_token_indices: expected a list of token numbers"),
        ("lora", {"trainable_token_indices": []}, r"trainable_token_indices: expected a list of token numbers"),
        ("adalora", {"init_lora_weights": "pissa"}, r"init_lora_weights: expected true or false, got 'pissa'"),
        ("adalora", {"use_rslora": True}, r"use_rslora: .*AdaLoRA does not read it"),
        ("hira", {"rank_pattern": {"query": 4}}, r"rank_pattern: .*one rank on all layers"),
        ("adamss", {"use_asa": True}, r"use_asa: .*a call after each step"),
        ("adamss", {"subspace_rank": 3}, r"subspace_rank: expected at most method\.r, 2, got 3"),
        ("pvera", {"sample_at_inference": True}, r"sample_at_inference: .*drawn anew"),
        ("tinylora", {"init_weights": "unifrom"}, r"init_weights: expected true or 'uniform', got 'unifrom'"),
        ("hra", {"apply_GS": True}, r"apply_GS: expected false, or init_weights false beside it"),
        ("delora", {"lambda_pattern": {"((": 5}}, r"lambda_pattern: expected a regular expression"),
        ("fourierft", {"n_frequency_pattern": {"a": "b"}}, r"n_frequency_pattern\['a'\]: expected an integer"),
        ("vera", {"bias": "lora_only"}, r"bias: expected one of none, all, vera_only, got 'lora_only'"),
        ("c3a", {"layers_pattern": "layer"}, r"layers_pattern \(it needs layers_to_transform"),
        ("vera", {"layers_to_transform": [0]}, r"^method\.target_modules: expected a list of names .*, got None"),
    ],
)
def test_what_a_run_cannot_do_with_is_refused_by_its_key(name, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        adapter_config(resolved(name, options))
    assert str(caught.value).startswith("method.")
    assert "\n" not in str(caught.value)


def test_what_is_refused_may_be_said_with_the_value_that_peft_has_anyway():
    options = {"use_qalora": False, "eva_config": None, "megatron_core": "megatron.core", "init_lora_weights": True}
    assert adapter_config(resolved("lora", options)) == adapter_config(resolved("lora", {}))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lora", {"rank_pattern": {"quer": 4}}),
        ("randlora", {"rank_pattern": {"layer.7.*": 4}}),
        ("c3a", {"block_size_pattern": {"none": 2}}),
    ],
)
def test_a_pattern_that_no_layer_has_is_named(name, options, new_task):
    with pytest.raises(LayerError, match=r"^method\.options\.\w+_pattern entry '.*': expected the name of an adapted"):
        build(new_task(), resolved(name, options))


def test_tokens_beyond_the_vocabulary_are_named(new_task):
    with pytest.raises(ConfigError, match=r"^method\.options\.trainable_token_indices: expected tokens of the vocab"):
        build(new_task(), resolved("lora", {"trainable_token_indices": [3, 999]}))


@pytest.mark.parametrize("name", ["vera", "c3a", "loha"])
def test_blocks_are_kept_to_where_layers_are_excluded_from_a_tuner_that_knows_no_exclusion(name, new_task):
    keys = {"target_modules": ["query", "key"], "exclude_modules": ["key"]}
    model = build(new_task(), resolved(name, {"layers_to_transform": [1]}, **keys))
    layers = {key.split(".base_layer")[0] for key, _ in model.named_parameters() if ".base_layer.weight" in key}
    assert [layer.split("encoder.")[1] for layer in layers] == ["layer.1.attention.self.query"]


@pytest.mark.parametrize(("name", "options"), [("pissa", {}), ("lora", {"init_lora_weights": "olora"})])
def test_without_such_an_adapter_the_model_is_not_the_base_model(name, options, new_task, tmp_path):
    """So preferences have no reference, a LoRA of its ΔW is wrong on the base model, and W₀ is not to be seen."""
    config = TrainConfig(task="preference", data=PreferenceData(), method=MethodConfig(name=name, options=options))
    with pytest.raises(ConfigError, match=r"^method: expected a method that leaves the base weights as they are"):
        check_method_section(config)
    adapted = build(new_task(), resolved(name, options))
    with pytest.raises(LayerError, match="expected one that leaves the base weights as they are"):
        export_lora(adapted, 2, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()
    with pytest.raises(CheckpointError, match="expected one that leaves the base weights as they are"):
        AdapterDeltas(adapted)


def test_trained_biases_of_lora_stop_an_export_and_a_merge_without_a_place_for_them(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))
    adapted = peft.get_peft_model(network, peft.LoraConfig(target_modules=["0"], lora_bias=True))
    fill(adapted)
    with pytest.raises(ConfigError, match=r"^lora_bias=True: expected False"):
        export_lora(adapted, 2, tmp_path / "lora")
    with pytest.raises(LayerError, match="expected a method and layers that can be merged"):
        merge_adapter(adapted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pissa", {}),
        ("lora", {"init_lora_weights": "olora"}),
        ("lora", {"init_lora_weights": "orthogonal"}),
        ("lora", {"velora_config": {"num_groups": 4, "init_type": "random"}}),
        ("lora", {"init_lora_weights": "mica"}),
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_adapter_and_score(name, options, text_config, interrupted):
    text_config.method = MethodConfig(name=name, r=2, options=options)
    text_config.optimization.save_steps = 2
    whole, whole_output = train(text_config), text_config.output
    text_config.output += "-stopped"
    interrupted(text_config, 5)
    assert train(text_config).metrics == whole.metrics
    for output in (whole_output, text_config.output):
        assert evaluate(output)["loss"] == pytest.approx(whole.metrics["test_loss"], rel=1e-5)
    assert inspect_adapter(Path(whole_output) / "adapter").trained == whole.trainable_parameters
