"""Every method of the table, trained through the one training path."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from every_method import REPRESENTATIVES
from randlora.errors import ConfigError, LayerError, RandLoraError
from randlora.methods import CATALOGUE, PROMPTS
from randlora.tasks import ImageTextData, TextData
from randlora.training import MethodConfig, TrainConfig, evaluate, load_config, train, validate
from randlora.training.adapted import load_adapted
from randlora.training.config import resolve
from randlora.training.config.method_table import AFTER_SEARCH, METHODS
from randlora.training.inspection import inspect_adapter
from randlora.training.merge import merge
from randlora.training.methods import build
from randlora.training.run.adalora import find_adalora, orthogonality
from tiny import SIZES, task_of

ON_LAYERS = [name for name in METHODS if name not in {method.name for method in PROMPTS}]


def method(name, **keys):
    r = 2 if "r" in METHODS[name].keys else None
    return MethodConfig(name=name, **{"r": r, "options": SIZES.get(name, {}), **keys})


def resolved(name, **keys):
    return resolve(TrainConfig(method=method(name, **keys))).method


@pytest.fixture
def task(bert):
    return task_of(TrainConfig(model=str(bert), data=TextData(max_length=16)), ["a", "b"])


def test_the_names_of_the_config_are_those_of_the_table():
    names = get_args(get_type_hints(MethodConfig)["name"])
    assert set(names) == {"full", "head", *METHODS}


@pytest.mark.parametrize("name", ON_LAYERS)
def test_every_method_adapts_the_backbone_alone_and_gets_gradients(name, task):
    model = build(task, resolved(name))
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    model(**inputs)["logits"].square().sum().backward()
    trained = {key: part for key, part in model.named_parameters() if part.requires_grad}
    assert all(part.grad is not None for part in trained.values())
    head = {key for key in trained if "classifier" in key}
    assert head == {f"base_model.model.classifier.modules_to_save.default.{part}" for part in ("weight", "bias")}
    assert len(trained) > 2


# Of this package's methods, which are saved and loaded by the same code, one of each sort; of PEFT's all.
TRAINED = [name for name in ON_LAYERS if name not in {method.name for method in CATALOGUE} - set(REPRESENTATIVES)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAINED if name not in ("randlora", "lora")])
def test_a_method_trains_and_evaluates_to_its_record(name, text_config):
    text_config.method = method(name)
    text_config.optimization.max_steps = 3
    text_config.data.validation = 0.25 if name in AFTER_SEARCH else None
    record = train(text_config)
    assert record.method == name
    assert record.trainable_parameters > 0
    metrics = evaluate(text_config.output)
    assert metrics["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)
    _check_what_is_told(text_config.output, record)
    _check_merging(text_config.output)


def _check_what_is_told(folder, record):
    """Numbers and layers of `inspect` and of the card are the run's; frozen bases in the file are not counted."""
    found = inspect_adapter(Path(folder) / "adapter")
    if record.method != "adalora":  # which saves what is left of its ranks
        assert found.trained == record.trainable_parameters
    # Of unilora all is in what layers share.
    assert found.adapted == {"unilora": None, "ln_tuning": 5}.get(record.method, 13)
    card = (Path(folder) / "adapter" / "README.md").read_text()
    assert f"| trained numbers | {found.trained:,}" in card
    assert f"| trained whole | {record.head_parameters} numbers" in card
    if record.method == "peft_randlora":
        assert {(layer.r, layer.num_bases, layer.trained) for layer in found.layers} == {(2, 8, 8 * (2 + 16))}


def _check_merging(folder):
    """A merged model, read by transformers alone, gives the adapted one's output, or the refusal is a line."""
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    if load_config(Path(folder) / "config.yaml").method.name in ("hydralora", "lily"):  # by the input
        with pytest.raises(RandLoraError, match=r"\A[^\n]*\Z"):
            merge(folder, f"{folder}-merged")
        assert not Path(f"{folder}-merged").exists()
        return
    merge(folder, f"{folder}-merged")
    merged = AutoModelForSequenceClassification.from_pretrained(f"{folder}-merged").eval()
    adapted, _ = load_adapted(folder, None)
    with torch.no_grad():
        torch.testing.assert_close(merged(**inputs).logits, adapted.eval()(**inputs)["logits"])


@pytest.mark.slow
def test_ia3_scales_the_input_of_feed_forward_modules(text_config):
    text_config.method = MethodConfig(
        name="ia3", target_modules=["key", "value", "output.dense"], options={"feedforward_modules": ["output.dense"]}
    )
    text_config.optimization.max_steps = 1
    record = train(text_config)
    assert record.trainable_parameters == 2 * (16 + 16 + 16 + 32)
    assert evaluate(text_config.output)["accuracy"] == record.metrics["test_accuracy"]


@pytest.mark.parametrize("name", ["vera", "shira", "loha"])
def test_methods_that_cannot_exclude_modules_leave_them_alone_all_the_same(name, clip, task):
    config = TrainConfig(task="image-text", model=str(clip), data=ImageTextData(encoders="vision"))
    vision = task_of(config, ["red", "green"])
    model = build(vision, resolved(name))
    layers = {key.split(".base_layer")[0] for key, _ in model.named_parameters() if ".base_layer.weight" in key}
    assert layers
    assert not any("text_model" in key for key in layers)
    some = build(task, resolved(name, target_modules=["query", "key"], exclude_modules=["key"]))
    layers = {key.split(".base_layer")[0] for key, _ in some.named_parameters() if ".base_layer.weight" in key}
    assert {layer.rpartition(".")[2] for layer in layers} == {"query"}


@pytest.mark.parametrize(
    ("name", "r", "alpha"),
    [
        ("randlora", 16, 8.0),
        ("dora", 16, 32.0),
        ("adalora", 16, 32.0),
        ("autolora", 16, 32.0),
        ("nola", 8, 1.0),
        ("hydralora", 4, 32.0),
        ("vera", 256, None),
        ("ia3", None, None),
        ("peft_randlora", 32, 640),
        ("full", None, None),
    ],
)
def test_defaults_are_the_methods_own(name, r, alpha):
    found = resolve(TrainConfig(method=MethodConfig(name=name))).method
    assert (found.r, found.alpha) == (r, alpha)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "ia3", "r": 4}, r"^method\.r: expected nothing, got 4 \(ia3 has no such number"),
        ({"name": "oft", "r": 4}, r"see method\.options"),
        ({"name": "hra", "dropout": 0.1}, r"^method\.dropout: expected nothing"),
        ({"name": "nola", "options": {"num_base": 3}}, r"^method\.options\.num_base: .*did you mean .*\.num_bases\?"),
        ({"name": "nola", "options": {"r": 3}}, r"^method\.options\.r: .*did you mean method\.r\?"),
        ({"name": "nola", "options": {"num_bases": "many"}}, r"^method\.options\.num_bases: expected a whole number"),
        ({"name": "nola", "options": {"num_bases": 0}}, r"^method\.options\.num_bases: expected an integer of 1"),
        ({"name": "svft", "options": {"pattern": "band"}}, r"^method\.options\.pattern: .*did you mean 'banded'"),
        ({"name": "dora", "options": {"use_dora": False}}, r"^method\.options\.use_dora: expected a known"),
        ({"name": "lora", "options": {"target_modules": []}}, r"^method\.options\.target_modules: expected a known"),
        ({"name": "boft", "options": {"boft_block_size": 4, "boft_block_num": 4}}, "^method 'boft': "),
        (
            {"name": "lora", "target_modules": "(("},
            r"^method\.target_modules: expected a regular expression, got '\(\('",
        ),
        ({"name": "vera", "exclude_modules": "(("}, r"^method\.exclude_modules: expected a regular expression"),
        (
            {"name": "lora", "options": {"rank_pattern": {"((": 4}}},
            r"^method\.options\.rank_pattern: expected a regular",
        ),
        (
            {"name": "lora", "options": {"rank_pattern": {"a": 0}}},
            r"^method\.options\.rank_pattern\['a'\]: expected an",
        ),
        ({"name": "loha", "options": {"rank_pattern": 5}}, r"^method\.options\.rank_pattern: expected names with"),
        (
            {"name": "lora", "options": {"alpha_pattern": {"a": -1}}},
            r"^method\.options\.alpha_pattern\['a'\]: expected a n",
        ),
        (
            {"name": "lora", "options": {"layers_pattern": "(("}},
            r"^method\.options\.layers_pattern: expected a regular",
        ),
        (
            {"name": "fourierft", "options": {"n_frequency_pattern": 3}},
            r"n_frequency_pattern: expected names with a value",
        ),
        ({"name": "lora", "target_modules": []}, r"^method\.target_modules: expected names of layers, got none"),
        ({"name": "vera", "target_modules": ""}, r"^method\.target_modules: expected names of layers, got none"),
        ({"name": "ia3", "options": {"feedforward_modules": ["b"]}}, r"^method\.target_modules: expected a list"),
        ({"name": "full", "options": {"a": 1}}, r"^method\.options: expected none for full"),
        ({"name": "lora", "options": {1: 2}}, r"^method\.options: expected names"),
    ],
)
def test_what_does_not_belong_to_a_method_is_refused_by_its_key(keys, message, text_config):
    text_config.method = MethodConfig(**keys)
    with pytest.raises(ConfigError, match=message) as caught:
        validate(text_config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("vblora", {"options": {"vector_length": 7}}),
        ("vblora", {"options": {"vector_length": 0}}),
        ("tinylora", {"target_modules": ["LayerNorm"]}),
    ],
)
def test_layers_and_options_that_a_method_cannot_do_with(name, keys, task):
    with pytest.raises(LayerError, match=rf"^method\.target_modules: expected layers that {name} can adapt") as caught:
        build(task, resolved(name, **keys))
    assert "\n" not in str(caught.value)


def test_ln_tuning_trains_norms_and_no_other_layer_unless_it_is_told_so(task):
    model = build(task, resolved("ln_tuning"))
    trained = {key for key, part in model.named_parameters() if part.requires_grad and "classifier" not in key}
    assert trained
    assert all("LayerNorm.ln_tuning_layers" in key for key in trained)


def test_a_parameter_that_peft_passes_over_is_named(task):
    options = {"target_parameters": ["query.weight", "experts"]}
    with pytest.raises(LayerError, match=r"^method\.options\.target_parameters entry 'experts': expected the name of"):
        build(task, resolved("lora", target_modules=["key"], options=options))


def test_options_from_a_file_and_the_command_line(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("method: {name: nola, options: {num_bases: 64}}", encoding="utf-8")
    assert load_config(path).method.options == {"num_bases": 64}
    assert load_config(path, ["--method.options.num_bases", "32"]).method.options == {"num_bases": 32}
    assert load_config(path, ["--method.options={}"]).method.options == {}
    with pytest.raises(ConfigError, match="method"):
        load_config(path, ["--method.option.num_bases", "32"])


def test_adalora_spends_its_budget(text_config):
    text_config.method = method("adalora")
    text_config.optimization.max_steps = 6
    train(text_config)
    folder = Path(text_config.output) / "adapter"
    assert '"total_step": 6' in (folder / "adapter_config.json").read_text()
    kept = [len(part) for name, part in load_file(folder / "adapter_model.safetensors").items() if "lora_E" in name]
    # 13 layers begin with 3 ranks each; 2 for each remain, where they matter most.
    assert sum(kept) == 13 * 2
    assert len(set(kept)) > 1
    text_config.method.options = {"tinit": 4, "tfinal": 2}
    text_config.output += "-2"
    with pytest.raises(ConfigError, match="leave two steps or more of 6"):
        train(text_config)


def test_adaloras_penalty_is_zero_for_orthonormal_factors(task):
    tuner = find_adalora(build(task, resolved("adalora", r=2)))
    layers = [part for part in tuner.modules() if isinstance(part, tuner.tuner_layer_cls)]
    with torch.no_grad():
        for layer in layers:
            layer.lora_A["default"].copy_(torch.eye(3, layer.in_features))
            layer.lora_B["default"].copy_(torch.eye(layer.out_features, 3))
        assert orthogonality(tuner) == 0
        layers[0].lora_A["default"][0, 0] = 2  # the Gram matrix is off by 3 in one entry, of two factors a layer
        torch.testing.assert_close(orthogonality(tuner), torch.tensor(0.5 * 3 / (2 * len(layers))))
