"""What a config that says nothing gets: rates, batches and budgets by task; and a rank that is as LoRA's."""

from dataclasses import replace

import peft
import pytest

from randlora.errors import ConfigError
from randlora.training import MethodConfig, OptimizationConfig, TrainConfig, load_config, train
from randlora.training.config.adapter_configs import adapter_config
from randlora.training.config.schema import config_of
from randlora.training.config.sections import resolve
from randlora.training.config.validation import validate
from randlora.training.inspection import inspect_run
from randlora.training.run.folder import RunFolder


@pytest.mark.parametrize(
    ("task", "method", "rate", "batch"),
    [
        ("text-classification", "randlora", 3e-3, 32),
        ("text-classification", "head", 3e-3, 32),
        ("text-classification", "lora", 1e-3, 32),
        ("text-classification", "hybrid", 1e-3, 32),
        ("image-text", "rslora", 3e-4, 32),
        ("image-text", "full", 1e-4, 32),
        ("sft", "randlora", 1e-3, 8),
        ("sft", "full", 5e-5, 8),
        ("sft", "hybrid", 1e-3, 8),
        ("preference", "lora", 5e-5, 8),
    ],
)
def test_rates_and_batches_follow_the_task(task, method, rate, batch):
    config = resolve(config_of({"task": task, "method": {"name": method}}))
    assert (config.optimization.learning_rate, config.optimization.batch_size) == (rate, batch)


@pytest.mark.parametrize(
    ("task", "method", "given", "head"),
    [
        ("text-classification", "lora", {}, 3e-3),
        ("image-classification", "full", {}, 3e-3),
        ("text-classification", "lora", {"head_learning_rate": 0.1}, 0.1),
        ("text-classification", "lora", {"learning_rate": 1e-4}, None),
        ("text-classification", "randlora", {}, None),
        ("image-text", "lora", {}, None),
        ("sft", "lora", {}, None),
    ],
)
def test_a_head_keeps_the_rate_of_its_task_where_none_is_given(task, method, given, head):
    config = resolve(config_of({"task": task, "method": {"name": method}, "optimization": given}))
    assert config.optimization.head_learning_rate == head


def test_what_is_given_stays():
    optimization = OptimizationConfig(learning_rate=0.5, batch_size=3, eval_batch_size=2)
    assert resolve(TrainConfig(task="sft", optimization=optimization)).optimization == optimization


@pytest.mark.parametrize(
    ("task", "name", "r"),
    [
        ("sft", "randlora", {"as_lora": 16}),
        ("sft", "hybrid", {"as_lora": 16}),
        ("sft", "lora", 16),
        ("sft", "lora_xs", 16),
        ("text-classification", "randlora", 16),
    ],
)
def test_the_default_rank(task, name, r):
    config = config_of({"task": task, "method": {"name": name}})
    assert resolve(config).method.r == r


def _trained_by_lora(config, rank):
    return inspect_run(replace(config, method=MethodConfig(name="lora", r=rank))).trained


@pytest.mark.parametrize("name", ["randlora", "randlora_b", "spectral", "hybrid"])
def test_as_many_numbers_as_a_lora(sft_config, name):
    found = inspect_run(replace(sft_config, method=MethodConfig(name=name, r={"as_lora": 3})))
    assert found.trained == pytest.approx(_trained_by_lora(sft_config, 3), rel=0.2)


def test_half_of_a_hybrids_numbers_are_loras_unless_it_is_told_otherwise():
    for options, wanted in (({}, 4), ({"lora_r": 2}, 2)):
        config = adapter_config(MethodConfig(name="hybrid", r={"as_lora": 8}, options=options))
        assert config.lora_r == wanted
        assert config.lora_alpha == 2 * wanted


def test_a_run_is_trained_evaluated_and_resumed_by_its_config(sft_config):
    sft_config.method = MethodConfig(name="randlora", r={"as_lora": 2})
    record = train(sft_config)
    folder = RunFolder(sft_config.output)
    adapter = peft.PeftConfig.from_pretrained(folder.path / "adapter")
    assert isinstance(adapter.r, int)
    assert adapter.alpha == 8.0
    written = load_config(folder.path / "config.yaml")
    assert written.method.r == {"as_lora": 2}
    assert train(sft_config) == record  # finished already, by the same config


@pytest.mark.parametrize("method", ["lora", "nola", "svft", "kradapter", "vera"])
def test_a_method_without_such_a_rank_refuses_it(sft_config, method):
    sft_config.method = MethodConfig(name=method, r={"as_lora": 2})
    with pytest.raises(ConfigError, match=r"method\.r: expected (a number or null|nothing), got \{'as_lora': 2\}"):
        validate(sft_config)


@pytest.mark.parametrize(
    "r", [{}, {"as_lora": 0}, {"as_lora": 1.5}, {"as_loro": 2}, {"as_lora": 2, "r": 1}, [2], "as_lora"]
)
def test_another_shape_of_rank_is_refused(r):
    with pytest.raises(ConfigError, match=r"method\.r: expected a whole number .* or \{as_lora: RANK\} or null"):
        config_of({"method": {"r": r}})


def test_on_the_command_line(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("task: sft\nmodel: x\n")
    assert load_config(file, ["--method.r", "{as_lora: 8}"]).method.r == {"as_lora": 8}
