"""Config files are read as they are written, and command-line words too."""

import pytest

from randlora.errors import ConfigError
from randlora.training import load_config


@pytest.fixture
def read(tmp_path):
    def load(text, *words):
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        return load_config(tmp_path / "config.yaml", words)

    return load


@pytest.mark.parametrize(
    "text",
    [
        "seed: 3\nseed: 4",
        "method: {r: 4}\ndata: {train: a}\nmethod: {alpha: 2}",
        "method: {r: 4, r: 8}",
        "method:\n  options: {x: 1, x: 2}",
        "data:\n  class_names: [{a: 1, a: 2}]",
        '"seed": 3\nseed: 4',
    ],
)
def test_a_key_that_is_there_twice_is_refused(read, text):
    with pytest.raises(ConfigError, match="is there twice"):
        read(text)


@pytest.mark.parametrize("number", ["010", "1:30", "0x1F", "0o17", "1_000", "0b1", "yes", "1e3", ".5", "1.0"])
def test_what_is_no_decimal_number_is_no_whole_number(read, number):
    for text, words in ((f"seed: {number}", ()), ("seed: 1", ("--seed", number)), ("{}", (f"--method.r={number}",))):
        with pytest.raises(ConfigError, match=r"expected a whole number"):
            read(text, *words)


@pytest.mark.parametrize("value", ["yes", "no", "on", "off", "y", "1"])
def test_only_true_and_false_are_truth_values(read, value):
    with pytest.raises(ConfigError, match="expected true or false"):
        read(f"task: image-text\ndata: {{augment: {value}}}")
    with pytest.raises(ConfigError, match="expected true or false"):
        read("task: image-text", "--data.augment", value)


def test_strings_stay_as_they_are(read):
    names = ["no", "010", "2020-01-01", "0x1F", "1_000", "1:30", "on", "=", "<<"]
    config = read(f"task: image-text\ndata: {{class_names: [{', '.join(names)}], train: 010, test: ~}}")
    assert config.data.class_names == names
    assert config.data.train == "010"
    assert config.data.test is None
    for word in ("010", "1e5", "null", "true", "a: b", "{x", "# a", "~", " "):
        assert read("{}", "--data.train", word).data.train == word
    assert read("task: image-text", "--data.class_names", "[no, 010]").data.class_names == ["no", "010"]
    assert read("{}", "--method.target_modules", "[query, key]").method.target_modules == ["query", "key"]
    assert read("{}", "--method.target_modules", ".*query").method.target_modules == ".*query"
    assert read("data: {test: x}", "--data.test", "null").data.test is None
    for word, value in (("0.1", 0.1), ("120", 120), ("dev.csv", "dev.csv"), ("null", None), ("010", "010")):
        assert read("{}", "--data.validation", word).data.validation == value


def test_numbers_are_read_in_every_usual_form(read):
    for text, value in (("3e-3", 3e-3), ("3.0e-3", 3e-3), (".003", 0.003), ("+0.5", 0.5), ("1", 1), ("1E1", 10.0)):
        assert read(f"optimization: {{learning_rate: {text}}}").optimization.learning_rate == value
        assert read("{}", f"--optimization.learning_rate={text}").optimization.learning_rate == value
    assert read("optimization: {max_steps: -1}", "--seed", "7").seed == 7


def test_options_are_read_likewise(read):
    config = read(
        "method: {name: hybrid, options: {lora_r: 4, x: 010}}", "--method.options.y", "2", "--method.options.z=no"
    )
    assert config.method.options == {"lora_r": 4, "x": "010", "y": 2, "z": "no"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "alias"),
        ("a: &a [1]\nb: *a", "alias"),
        ("[" * 5000, "nested too deep"),
        ("seed: " + "9" * 5000, "digits"),
        ("1: 2", "not a string"),
        ("? [a]\n: 1", "not a string"),
        ("seed: 1\n---\nseed: 2", "expected YAML"),
        ("x: !!python/object/apply:os.getcwd []", "expected YAML"),
        ("\ufeff\x00", "expected YAML"),
    ],
)
def test_what_unfolds_or_nests_without_end_is_refused(read, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_no_file_to_read(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml", "/dev/zero"):
        with pytest.raises(ConfigError, match="expected a YAML file"):
            load_config(path)
