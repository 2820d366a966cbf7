import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from trl import DPOConfig, SFTConfig

from randlora.errors import ConfigError, DataError, DeviceError, OutputError, RandLoraError
from randlora.tasks import TASKS
from randlora.training import OptimizationConfig, TrainConfig, load_config, train, validate
from randlora.training.config import resolve
from randlora.training.config import validation as validation_module
from randlora.training.config.schema import keys
from randlora.training.config.synonyms import INSTEAD, SYNONYMS, known_as
from randlora.training.config.validation import check_method_section

SUITES = Path(__file__).parents[2] / "suites"


def change(config, key, value):
    section, _, name = key.rpartition(".")
    setattr(getattr(config, section) if section else config, name, value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("method.r", 0, "a whole number above 0, below 2^31 or {as_lora: RANK} or null, got 0"),
        ("method.r", 2.5, "or null, got 2.5"),
        ("method.r", True, "a whole number"),
        ("method.name", "loar", "did you mean 'lora'?"),
        ("method.bases", "unifrom", "did you mean 'uniform'?"),
        ("method.alpha", -1.0, "a number above 0"),
        ("method.dropout", 1.0, "from 0 to below 1"),
        ("method.sparsity", 3.0, "None"),
        ("method.target_modules", 7, "a list of strings or a string or null"),
        ("optimization.learning_rate", float("nan"), "a number above 0"),
        ("optimization.scheduler", "linaer", "did you mean 'linear'?"),
        ("optimization.max_steps", 0, "-1 or a whole number above 0"),
        ("optimization.warmup_ratio", 1.0, "from 0 to below 1"),
        ("data.fraction", 1.5, "at most 1"),
        ("data.shots", 0, "above 0"),
        ("model", "", "a hub id"),
        ("seed", -1, "a whole number from 0"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(text_config, key, value, expected):
    change(text_config, key, value)
    with pytest.raises(ConfigError) as caught:
        validate(text_config)
    assert str(caught.value).startswith(f"{key}: ")
    assert expected in str(caught.value)


def test_shots_and_fraction_conflict(text_config):
    text_config.data.shots, text_config.data.fraction = 4, 0.5
    with pytest.raises(ConfigError, match=r"data\.shots: expected either shots or a fraction"):
        validate(text_config)


@pytest.mark.parametrize("key", ["pooling", "group_by_length", "text_column", "max_length"])
def test_a_key_of_another_task_is_refused(file, key):
    file.write_text(f"task: image-text\ndata:\n  {key}: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"data\.{key}: expected a known config key .only of .*text-classification"):
        load_config(file)


def test_the_data_section_of_another_task_is_refused(text_config):
    with pytest.raises(ConfigError, match="data: expected a ImageTextData, for image-text, got TextData"):
        validate(replace(text_config, task="image-text"))


def test_data_and_output_are_checked_before_anything_is_loaded(text_config, tmp_path):
    with pytest.raises(DataError, match=r"data\.test: .*does not exist"):
        validate(replace(text_config, data=replace(text_config.data, test=str(tmp_path / "none.csv"))))
    with pytest.raises(DataError, match=r"data\.test: expected a file or folder with test data"):
        validate(replace(text_config, data=replace(text_config.data, test=None)))
    for split in ("train", "validation", "test"):  # no name is not the same as no split
        with pytest.raises(DataError, match=rf"data\.{split}: expected .*, got nothing"):
            validate(replace(text_config, data=replace(text_config.data, **{split: ""})))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="which is a file"):
        validate(replace(text_config, output=str(tmp_path / "file" / "run")))
    validate(text_config)


def test_hardware_that_is_not_there(text_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(validation_module, "_cpu_has_bf16", lambda: False)
    for key, value in (("device", "cuda"), ("precision", "bf16"), ("precision", "fp16")):
        optimization = replace(text_config.optimization, **{key: value})
        with pytest.raises(DeviceError, match=rf"optimization\.{key}"):
            validate(replace(text_config, optimization=optimization))


def test_alpha_resolves_to_the_methods_default():
    config = TrainConfig()
    for name, alpha in (("randlora", 8.0), ("lora", 32.0), ("full", None)):
        config.method.name = name
        assert resolve(config).method.alpha == alpha
    assert config.method.alpha is None


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("seed: 3\nmethod:\n  r: 8\noptimization:\n  learning_rate: 3e-3\n", encoding="utf-8")
    return path


def test_a_file_is_read_with_its_types_and_overridden(file):
    config = load_config(file, ["--method.r=4", "--data.shots", "2", "--method.target_modules", "['query','key']"])
    assert (config.seed, config.method.r, config.data.shots) == (3, 4, 2)
    assert config.optimization.learning_rate == 3e-3
    assert config.method.target_modules == ["query", "key"]
    assert config.data.text_column == "text"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("method: {rr: 8}", r"method\.rr: .*did you mean method\.r\?"),
        ("learning_rat: 1", r"did you mean optimization\.learning_rate\?"),
        ("method: {r: eight}", r"method\.r: expected a whole number .*or null, got 'eight'"),
        ("method: 8", r"method: expected a section"),
        ("data: {shots: [1]}", r"data\.shots"),
        ("seed: {a: 1}", r"seed"),
        ("[1, 2]", "expected keys and values"),
        ("a: [", "expected YAML"),
        ("x: !!python/object/apply:os.getcwd []", "expected YAML"),
    ],
)
def test_a_wrong_file_is_one_line_of_what_to_do(file, content, message):
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method.rank", "8"], r"method\.rank: expected a known config key"),
        (["--method.r", "x"], r"method\.r: expected a whole number .*or null, got 'x'"),
        (["--data.shots", "1.5"], r"data\.shots: expected a whole number .*or null, got '1.5'"),
        (["stray"], "stray"),
        (["--method.r"], r"method\.r"),
        (["--method.r="], r"method\.r: expected a whole number .*, got ''"),
        (["--method.r", "--seed", "3"], r"method\.r: expected a value after it"),
        (["--bf16", "true"], r"bf16: .*did you mean optimization\.precision bf16\?"),
        (["--use_dora", "true"], r"use_dora: .*did you mean method\.name dora\?"),
        (["--max-steps", "3"], r"max-steps: .*did you mean optimization\.max_steps\?"),
        (["--per-device-train-batch-size", "3"], r"did you mean per_device_train_batch_size\?"),
        (
            ["--data.cutoff_len", "9", "--data.max_length", "8"],
            r"data\.max_length: .*two, as --data\.cutoff_len and as --data\.max_length",
        ),
    ],
)
def test_wrong_words_on_the_command_line(file, words, message):
    with pytest.raises(ConfigError, match=message):
        load_config(file, words)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_suite_is_a_valid_config(path, tmp_path):
    config = load_config(path, ["--output", str(tmp_path / "run"), "--optimization.precision", "fp32"])
    try:
        validate(config)
    except RandLoraError as error:
        pytest.fail(str(error))


def test_each_key_of_other_tools_is_told_of_one_that_is_there():
    known = {key for task in TASKS for key in keys(task)}
    assert set(SYNONYMS.values()) <= known
    assert {hint.split()[0] for hint in INSTEAD.values()} <= known
    assert not set(INSTEAD) & {*SYNONYMS, *known}


def test_a_key_that_trl_has_without_a_section_is_read_without_one():
    trl = {entry.name for kind in (SFTConfig, DPOConfig) for entry in dataclasses.fields(kind)}
    data = [("data", task.data_class) for task in TASKS.values()]
    for section, kind in [("optimization", OptimizationConfig), *data]:
        for entry in dataclasses.fields(kind):
            if entry.name in trl:
                assert known_as(entry.name) == known_as(f"{section}.{entry.name}") == f"{section}.{entry.name}"


@pytest.mark.parametrize("key", ["max_length", "packing", "beta"])
def test_a_key_without_its_section_that_the_task_has_not_is_refused(file, key):
    file.write_text(f"task: image-text\n{key}: 1", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"data\.{key}"):
        load_config(file)


@pytest.mark.parametrize("share", ["10%", "0.25", "1/4"])
def test_a_share_that_is_no_number_is_no_name_on_the_hub(text_config, share):
    text_config.data.validation = share
    with pytest.raises(DataError, match=rf"^data\.validation: .*, got {share} \(a share is a number as 0\.1"):
        validate(text_config)


def test_a_truth_value_is_no_repository(text_config):
    text_config.push_to_hub = "true"
    with pytest.raises(ConfigError, match=r"^push_to_hub: expected a repository's name, got true"):
        validate(text_config)


@pytest.mark.parametrize(
    "key",
    [
        "task",
        "model",
        "start_from",
        "seed",
        "report_to",
        "method",
        "method.name",
        "method.r",
        "method.target_modules",
        "method.options",
        "data",
        "data.train",
        "optimization.learning_rate",
    ],
)
@pytest.mark.parametrize(
    "value",
    [(), {1, 2}, b"x", Path("x"), object(), np.int64(3), np.float64(0.5), np.ones(2), TrainConfig, [None]],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_python_alone_has_is_refused_by_its_key(key, value, text_config):
    change(text_config, key, value)
    for check in (validate, train):
        with pytest.raises(ConfigError, match=rf"^{key}: expected ") as caught:
            check(text_config)
        assert "\n" not in str(caught.value)
    assert not Path(text_config.output).exists()


def test_what_is_no_config_at_all():
    for check in (validate, train):
        with pytest.raises(ConfigError, match=r"^config: expected a TrainConfig, got dict"):
            check({"task": "sft"})


def test_nobodys_home(text_config):
    text_config.output = "~nobody-of-this-name/run"
    with pytest.raises(ConfigError, match=r"^~nobody-of-this-name/run: expected a path, got the home of a user who"):
        validate(text_config)


@pytest.mark.parametrize("task", TASKS)
def test_without_a_data_section_a_task_has_its_own(file, task):
    file.write_text(f"task: {task}\n", encoding="utf-8")
    assert type(load_config(file).data) is TASKS[task].data_class


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("layers_to_transform", "a list of whole numbers or a whole number or null"),
        ("trainable_token_indices", "a list of token numbers or layers with such a list each or null"),
        ("target_parameters", "a list of strings or null"),
    ],
)
def test_what_a_list_holds_is_named(file, option, expected):
    file.write_text(f"method: {{name: lora, options: {{{option}: x}}}}", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"method\.options\.{option}: expected {expected}"):
        check_method_section(load_config(file))
