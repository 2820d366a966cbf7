from pathlib import Path

import pytest
from torch import nn

from randlora.demo.arms import SETTINGS, build_arms, equal_lora_rank
from randlora.demo.clip import build_model, build_tokenizer, save_clip
from randlora.demo.digits import DigitFiles
from randlora.demo.glyphs import all_captions


def test_equal_rank_of_a_square_layer():
    # n = 128/16 = 8 bases train 8·16 + 8·128 = 1152 numbers; LoRA 256 per rank.
    assert equal_lora_rank(nn.Linear(128, 128), 16) == 4
    assert equal_lora_rank(nn.Linear(16, 64), 16) == 1


@pytest.fixture
def arms(tmp_path):
    tokenizer = build_tokenizer(all_captions(), max_length=16)
    save_clip(build_model(tokenizer, image_size=16, width=128, layers=3), tokenizer, tmp_path / "clip")
    return build_arms(tmp_path / "clip", DigitFiles(Path("train.parquet"), Path("test.parquet")), tmp_path / "runs")


def test_every_method_in_every_setting_in_a_folder_of_its_own(arms):
    assert len({(arm.setting, arm.label) for arm in arms}) == 4 * len(SETTINGS) == len(arms)
    assert len({arm.config.output for arm in arms}) == len(arms)
    assert {arm.config.data.shots for arm in arms} == {setting.shots for setting in SETTINGS}


def test_methods_differ_in_method_rate_and_folder_only(arms):
    def common(arm):
        fields = vars(arm.config).copy()
        fields.pop("method"), fields.pop("output")
        fields["optimization"] = {**vars(arm.config.optimization), "learning_rate": None}
        return fields

    few = [arm for arm in arms if arm.setting == SETTINGS[0].name]
    assert all(common(arm) == common(few[0]) for arm in few)
