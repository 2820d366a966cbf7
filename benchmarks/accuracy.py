"""What the accuracy benchmarks share: every method at its best learning rate, repeated with all seeds."""

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from randlora.training import MethodConfig, Record, TrainConfig
from randlora.training.merge import merge
from randlora.training.search import search

RESULTS = Path(__file__).parent / "results"
SUITES = Path(__file__).parent.parent / "suites"


def accuracies(records: list[Record]) -> list[float]:
    """Test accuracies in percent."""
    return [record.metrics["eval_accuracy"] or 0.0 for record in records]


def by_rate(config: TrainConfig, rates: Sequence[float], seed: int) -> dict[float, float]:
    """Accuracies at the middle three learning rates, and while the best of them lies at an edge, the next one beyond.

    Args:
        config: The run; its learning rate and seed are replaced.
        rates: Learning rates in ascending order, an odd number of three or more.
        seed: Of all runs.
    """
    tried: dict[float, float] = {}
    middle = len(rates) // 2
    wanted = [middle - 1, middle, middle + 1]
    while wanted:
        chosen = [rates[index] for index in wanted]
        tried |= zip(chosen, accuracies(search(config, chosen, [seed])), strict=True)
        best = rates.index(best_of(tried))
        wanted = [i for i in (best - 1, best + 1) if 0 <= i < len(rates) and rates[i] not in tried]
    return dict(sorted(tried.items()))


def best_of(tried: dict[float, float]) -> float:
    """The learning rate of the highest accuracy."""
    return max(tried, key=lambda rate: tried[rate])


def with_lora_merged(config: TrainConfig, r: int, rates: Sequence[float]) -> TrainConfig:
    """The second half of a training whose first half was a LoRA's: half of the epochs, on the model with it merged.

    Args:
        config: The run; its `output` has the LoRA's runs in a folder beside it.
        r: The LoRA's rank.
        rates: Its learning rates; the best one is taken.
    """
    optimization = replace(config.optimization, epochs=config.optimization.epochs / 2)
    method = MethodConfig(name="lora", r=r, target_modules=config.method.target_modules)
    folder = Path(f"{config.output}-lora")
    first = replace(config, method=method, optimization=optimization, output=str(folder))
    rate = best_of(by_rate(first, rates, config.seed))
    if not (folder / "merged").is_dir():
        merge(folder / f"lr{rate:g}-seed{config.seed}", folder / "merged")
    return replace(config, model=str(folder / "merged"), optimization=optimization)


def at_best_rate(config: TrainConfig, rates: Sequence[float], seeds: Sequence[int]) -> dict:
    """The learning rates with the first seed, see `by_rate`, and the best with all seeds.

    Args:
        config: The run; its learning rate and seed are replaced.
        rates: Learning rates in ascending order, an odd number of three or more.
        seeds: One or more.
    """
    tried = by_rate(config, rates, seeds[0])
    best_rate = best_of(tried)
    records = search(config, [best_rate], seeds)
    values = accuracies(records)
    return {
        "method": asdict(config.method),
        "trainable_parameters": records[0].trainable_parameters,
        "head_parameters": records[0].head_parameters,
        "adapter_bytes": records[0].adapter_bytes,
        "accuracy_by_learning_rate": {f"{rate:g}": value for rate, value in tried.items()},
        "best_learning_rate": best_rate,
        "accuracies": values,
        "mean": statistics.mean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "hardware": records[0].hardware,
        "versions": records[0].versions,
    }


def command_line(description: str | None, methods: Iterable[str], runs: str) -> argparse.Namespace:
    """The arguments of a benchmark of accuracy: train, test, methods and runs.

    Args:
        description: Of the benchmark.
        methods: Names of what it can run.
        runs: Where its runs are kept, if the user does not say.
    """
    names = list(methods)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="file of the training split")
    parser.add_argument("--test", required=True, help="file of the test split")
    parser.add_argument("--methods", nargs="+", choices=names, default=names, help="which to run")
    parser.add_argument("--runs", type=Path, default=Path(runs), help="folder of the runs")
    return parser.parse_args()


def report(file_name: str, name: str, result: dict) -> None:
    """Print one method's result and put it into a file of results, which several processes may be filling."""
    spread = "" if result["spread"] is None else f" ± {result['spread']:.2f}"
    print(f"{name}: {result['mean']:.2f}{spread} % at {result['best_learning_rate']:g}", flush=True)
    path = RESULTS / file_name
    summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    summary[name] = result
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
