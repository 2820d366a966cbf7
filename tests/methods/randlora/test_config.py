"""Every wrong value is named, with what would be right."""

import peft
import pytest

from randlora import RandLoraConfig
from randlora.errors import ConfigError
from randlora.methods.randlora import PEFT_TYPE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, r"^r: expected an integer of 1 or more, got 0"),
        ({"r": -3}, "got -3"),
        ({"r": 2.5}, r"got 2\.5"),
        ({"r": True}, "got True"),
        ({"rank_pattern": {"q": 0}}, r"rank_pattern\['q'\]"),
        ({"alpha": 0}, "alpha: expected a number above 0"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha_pattern": {"q": "big"}}, r"alpha_pattern\['q'\]"),
        ({"bases": "unifrom"}, "did you mean 'uniform'"),
        ({"strategy": "fold"}, "did you mean 'folded'"),
        ({"strategy_pattern": {"q": "fold"}}, r"strategy_pattern\['q'\].*did you mean 'folded'"),
        ({"dropout": 0.1, "strategy_pattern": {"q": "folded"}}, r"strategy_pattern\['q'\].*dropout"),
        ({"bias": "lora_only"}, "did you mean 'randlora_only'"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": 0.1, "strategy": "folded"}, "strategy.*dropout"),
        ({"sparsity": 6}, "sparsity: expected None"),
        ({"bases": "ternary", "sparsity": 1.5}, "a number of 2 or more"),
        ({"bases": "ternary", "sparsity": "root"}, "'sqrt'"),
        ({"bases": "peft", "sparsity": 3}, "None, 6 or 'sqrt'"),
        ({"num_bases": 0}, "num_bases"),
        ({"rank_fraction": 0}, r"rank_fraction: expected a number in \(0, 1\], got 0"),
        ({"rank_fraction": 1.5}, "rank_fraction"),
        ({"separate_a": True}, "separate_a.*uniform, normal and ternary"),
        ({"bases": "peft", "num_bases": 2}, "num_bases and rank_fraction left out"),
        ({"layers_pattern": "blocks"}, "layers_to_transform"),
        ({"target_modules": 5}, "target_modules: expected a list of names or one regular expression, got 5"),
        ({"target_modules": ["q", 1]}, "target_modules"),
        ({"target_modules": "layers.(q"}, "target_modules: expected a regular expression"),
        ({"exclude_modules": 7}, "exclude_modules"),
        ({"modules_to_save": "classifier"}, "modules_to_save: expected a list of names"),
        ({"rank_pattern": ["q"]}, "rank_pattern: expected layer names with a value each"),
        ({"rank_pattern": {"(": 2}}, "rank_pattern: expected a regular expression"),
        ({"alpha_pattern": None}, "alpha_pattern"),
        ({"layers_to_transform": "3"}, "layers_to_transform: expected block indices"),
        ({"layers_to_transform": [0, -1]}, "layers_to_transform"),
        ({"bases": "peft", "peft_draw": {"rows": 8}}, "peft_draw: expected rows, columns and a dtype"),
        ({"bases": "peft", "peft_draw": {"rows": 8, "columns": 8, "dtype": "int8"}}, "peft_draw"),
    ],
)
def test_wrong_values(options, message):
    with pytest.raises(ConfigError, match=message):
        RandLoraConfig(**options)


def test_an_error_is_a_value_error_of_one_line():
    with pytest.raises(ValueError, match="smaller r trains more") as caught:
        RandLoraConfig(r=0)
    assert "\n" not in str(caught.value)


def test_defaults_by_family():
    assert RandLoraConfig().alpha == 8.0
    assert RandLoraConfig(bases="peft", r=8).alpha == 160.0
    assert RandLoraConfig().peft_type == PEFT_TYPE


def test_round_trip(tmp_path):
    config = RandLoraConfig(
        r=7, bases="ternary", sparsity=6.0, seed=3, target_modules=["q", "v"], rank_pattern={"q": 2}, dropout=0.1
    )
    config.save_pretrained(tmp_path)
    loaded = peft.PeftConfig.from_pretrained(tmp_path)
    assert type(loaded) is RandLoraConfig
    assert loaded.to_dict() == config.to_dict()
