"""A score is forward passes alone: what backward passes over all of them would need is more than training takes."""

import json
from dataclasses import replace

import pytest

from forward_only import forward_only
from randlora.tasks.language.task import LanguageTask
from randlora.training import MethodConfig, PreferenceData, evaluate, train
from randlora.training.run.trainer import RunTrainer

pytestmark = pytest.mark.slow


@pytest.fixture
def preference_config(sft_config, tmp_path):
    rows = [{"prompt": f"a{number}", "chosen": "b", "rejected": "c"} for number in range(8)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return replace(sft_config, task="preference", data=PreferenceData(train=str(path), test=str(path), max_length=60))


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", ["sft_config", "preference_config", "text_config", "image_config"])
def test_nothing_is_kept_for_a_backward_pass(request, monkeypatch, kind, method):
    config = request.getfixturevalue(kind)
    options = {"max_steps": 2, "eval_steps": 1, "save_steps": 1, "learning_rate": 1e-3}
    data = replace(config.data, validation=0.5)
    config = replace(config, method=MethodConfig(method), data=data)
    config.optimization = replace(config.optimization, **options)
    scored = []

    def watched(score):
        def run(*args, **kwargs):
            scored.append(score.__name__)
            with forward_only():
                return score(*args, **kwargs)

        return run

    for owner, name in ((RunTrainer, "evaluate"), (LanguageTask, "unrelated")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    record = train(config)
    # Before training, in it after both steps, and after it on validation and test data.
    assert scored.count("evaluate") == 5
    assert scored.count("unrelated") == (2 if config.task in ("sft", "preference") else 0)
    assert evaluate(config.output) == pytest.approx(
        {name.removeprefix("test_"): value for name, value in record.metrics.items() if name.startswith("test_")}
    )
