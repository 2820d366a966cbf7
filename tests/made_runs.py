"""Finished runs without training: the files of a run's folder, as a report reads them."""

from dataclasses import replace
from pathlib import Path

import yaml

from randlora.training import MethodConfig, OptimizationConfig, Record, TextData, TrainConfig
from randlora.training.run.folder import as_dict

DATA = TextData(train="intents/train.csv", validation=0.1, test="intents/test.csv")


def made_run(
    folder: Path,
    method: MethodConfig | None = None,
    *,
    rate: float = 1e-3,
    seed: int = 0,
    validation: float | None = 90.0,
    test: float | None = None,
    config: dict | None = None,
    **changes,
) -> Path:
    """Write a run.

    Args:
        folder: Its folder.
        method: Its method.
        rate: Its learning rate.
        seed: Its seed.
        validation: Its accuracy on validation; None for a run without that split.
        test: Its accuracy on test; None for one that was not scored.
        config: Other fields of its config.
        changes: Other fields of its record.
    """
    method = method or MethodConfig(name="lora", r=4, alpha=8.0)
    fields = {
        "task": "text-classification",
        "model": "models/minilm",
        "output": str(folder),
        "seed": seed,
        "data": DATA,
        "optimization": OptimizationConfig(learning_rate=rate),
    }
    made = TrainConfig(method=method, **{**fields, **(config or {})})
    scores = {"validation_accuracy_before": 10.0, "validation_accuracy": validation} if validation is not None else {}
    if test is not None:
        scores |= {"test_accuracy": test, **({} if validation is not None else {"test_accuracy_before": 10.0})}
    record = Record(
        method=method.name,
        task=made.task,
        model=made.model,
        goal="accuracy",
        unit="%",
        metrics=scores,
        trainable_parameters=1000,
        head_parameters=10,
        adapter_bytes=5000,
        train_seconds=20.0,
        step_seconds_median=0.1,
        peak_memory_bytes=10**9,
        seed=seed,
        facts={"label_names": ["a", "b"]},
        versions={"python": "3.11.7", "torch": "2.13.0"},
        commit=None,
        hardware={"device": "a processor", "cores": 2, "precision": "fp32"},
        started="2026-01-01T00:00:00+00:00",
        history=[
            {"loss": 2.0, "learning_rate": rate, "step": 10},
            {"validation_accuracy": 50.0, "step": 10},
            {"loss": 1.0, "learning_rate": 0.0, "step": 20},
        ],
    )
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(as_dict(made), allow_unicode=True), encoding="utf-8")
    replace(record, **changes).save(folder)
    return folder
