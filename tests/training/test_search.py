from pathlib import Path

import pytest

from randlora.errors import ConfigError
from randlora.training import search
from randlora.training.search import best


def test_each_rate_and_seed_is_a_run_and_none_is_repeated(text_config):
    text_config.optimization.max_steps = 1
    records = search(text_config, [1e-3, 1e-2], [0, 1])
    folders = sorted(path.name for path in Path(text_config.output).iterdir())
    assert folders == ["lr0.001-seed0", "lr0.001-seed1", "lr0.01-seed0", "lr0.01-seed1"]
    assert [record.seed for record in records] == [0, 1, 0, 1]
    assert search(text_config, [1e-3, 1e-2], [0, 1]) == records
    mean = [sum(r.metrics["eval_accuracy"] for r in records[start : start + 2]) for start in (0, 2)]
    assert best(records, seeds=2) == (records[:2] if mean[0] >= mean[1] else records[2:])


def test_nothing_to_try(text_config):
    with pytest.raises(ConfigError, match="at least one learning rate"):
        search(text_config, [], [0])
