"""What the accuracy benchmarks share: every method at its best learning rate, repeated with all seeds."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from randlora.training import Record, TrainConfig
from randlora.training.search import search

RESULTS = Path(__file__).parent / "results"
SUITES = Path(__file__).parent.parent / "suites"


def accuracies(records: list[Record]) -> list[float]:
    """Test accuracies in percent."""
    return [record.metrics["eval_accuracy"] or 0.0 for record in records]


def at_best_rate(config: TrainConfig, rates: Sequence[float], seeds: Sequence[int]) -> dict:
    """The learning rates with the first seed, the best with all seeds.

    The middle three are tried, and while the best of those tried lies at their edge, the next one beyond.

    Args:
        config: The run; its learning rate and seed are replaced.
        rates: Learning rates in ascending order, an odd number of three or more.
        seeds: One or more.
    """
    tried: dict[float, float] = {}
    middle = len(rates) // 2
    wanted = [middle - 1, middle, middle + 1]
    while wanted:
        chosen = [rates[index] for index in wanted]
        tried |= zip(chosen, accuracies(search(config, chosen, seeds[:1])), strict=True)
        best_rate = max(tried, key=lambda rate: tried[rate])
        best = rates.index(best_rate)
        wanted = [i for i in (best - 1, best + 1) if 0 <= i < len(rates) and rates[i] not in tried]
    records = search(config, [best_rate], seeds)
    values = accuracies(records)
    return {
        "method": asdict(config.method),
        "trainable_parameters": records[0].trainable_parameters,
        "head_parameters": records[0].head_parameters,
        "adapter_bytes": records[0].adapter_bytes,
        "accuracy_by_learning_rate": {f"{rate:g}": tried[rate] for rate in sorted(tried)},
        "best_learning_rate": best_rate,
        "accuracies": values,
        "mean": statistics.mean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "hardware": records[0].hardware,
        "versions": records[0].versions,
    }


def add_result(file_name: str, name: str, result: dict) -> None:
    """Put one method's result into a file of results, which several processes may be filling."""
    path = RESULTS / file_name
    summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    summary[name] = result
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
