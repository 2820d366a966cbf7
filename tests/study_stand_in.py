"""Runs that take no time: a record that follows from the config alone, for tests of all that is around a run."""

import time
from dataclasses import replace
from pathlib import Path

from randlora.errors import ConfigError, TrainingError
from randlora.studies.suite import Suite
from randlora.training.config import resolve
from randlora.training.run import Record

BEST = {"lora": 3e-3, "randlora": 1e-3, "full": 1e-4}
"""The rate at which each method's stand-in is best."""

RECORD = Record(
    method="lora",
    task="text-classification",
    model="m",
    goal="accuracy",
    unit="%",
    metrics={},
    trainable_parameters=100,
    head_parameters=10,
    adapter_bytes=400,
    train_seconds=1.0,
    step_seconds_median=0.01,
    peak_memory_bytes=2**20,
    seed=0,
    facts={},
    versions={},
    commit=None,
    hardware={},
    started="2026-01-01T00:00:00+00:00",
    history=[],
)


def score(config):
    """Best at the method's rate, and a little different for every seed."""
    rate = config.optimization.learning_rate
    distance = abs(rate - BEST[config.method.name]) / rate
    return 90 - 10 * distance + config.seed + len(config.data.label_column)


def train(config, *, score_test):
    """What a run leaves behind."""
    config = resolve(config)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"validation_accuracy": score(config)}
    if score_test:
        metrics["test_accuracy"] = score(config) - 1
    record = replace(RECORD, method=config.method.name, seed=config.seed, metrics=metrics)
    record.save(folder)
    with (folder / "times").open("a", encoding="utf-8") as file:
        file.write("x")
    return record


def slowly(config, *, score_test):
    time.sleep(0.05)
    return train(config, score_test=score_test)


def failing_at(rate, error=None):
    """`train`, but for one learning rate."""

    def run(config, *, score_test):
        if config.optimization.learning_rate == rate:
            raise error or ConfigError("model", expected="one that loads", got="none")
        return train(config, score_test=score_test)

    return run


DIVERGED = TrainingError("loss", expected="a finite number", got="nan")


def suite(**changes):
    """Two tasks, two methods at a budget and full fine-tuning."""
    values = {
        "name": "small",
        "base": {"model": "m", "data": {"train": "a.csv", "test": "b.csv", "validation": 0.1}},
        "tasks": {"one": {}, "two": {"data.label_column": "intent"}},
        "methods": {
            "lora": {"name": "lora"},
            "randlora": {"name": "randlora"},
            "full": {"name": "full", "learning_rates": [1e-4, 3e-4, 1e-3]},
        },
        "budgets": [{"as_lora": 4}],
        "seeds": [0, 1],
        "learning_rates": [1e-3, 3e-3, 1e-2],
    }
    return Suite(**{**values, **changes})


def trained_times(folder):
    """Run folder -> how often it was trained."""
    return {path.parent.name: len(path.read_text()) for path in Path(folder).glob("runs/*/times")}
