"""What the accuracy benchmarks share: every method at its best learning rate on validation, repeated with all seeds."""

import argparse
import json
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from randlora.training import MethodConfig, TrainConfig, search, train
from randlora.training.merge import merge
from randlora.training.rates import with_rate

RESULTS = Path(__file__).parent / "results"
SUITES = Path(__file__).parent.parent / "suites"


def with_lora_merged(config: TrainConfig, r: int, rates: Sequence[float]) -> TrainConfig:
    """The second half of a training whose first half was a LoRA's: half of the epochs, on the model with it merged.

    Args:
        config: The run; its `output` has the LoRA's runs in a folder beside it.
        r: The LoRA's rank.
        rates: Its learning rates; the best one on the validation split is taken.
    """
    optimization = replace(config.optimization, epochs=config.optimization.epochs / 2)
    method = MethodConfig(name="lora", r=r, target_modules=config.method.target_modules)
    folder = Path(f"{config.output}-lora")
    first = replace(config, method=method, optimization=optimization, output=str(folder))
    rate = search(first, rates, [config.seed]).learning_rate
    if not (folder / "merged").is_dir():
        merge(folder / f"lr{rate:g}-seed{config.seed}", folder / "merged")
    return replace(config, model=str(folder / "merged"), optimization=optimization)


def at_best_rate(config: TrainConfig, rates: Sequence[float], seeds: Sequence[int]) -> dict:
    """A method at its best learning rate on the validation split, see `randlora.training.search`, as a result to keep.

    Args:
        config: The run; its learning rate and seed are replaced.
        rates: Learning rates to begin with; the grid is widened while the best is at its edge.
        seeds: Of the runs at the best rate, whose test split is scored.
    """
    found = search(config, rates, seeds)
    first, split = found.records[0], config.data.validation
    mean, spread = found.mean_and_spread()
    return {
        "method": asdict(config.method),
        "trainable_parameters": first.trainable_parameters,
        "head_parameters": first.head_parameters,
        "adapter_bytes": first.adapter_bytes,
        "validation_split": Path(split).name if isinstance(split, str) else split,
        "validation_by_learning_rate": {f"{rate:g}": value for rate, value in found.validation.items()},
        "best_learning_rate": found.learning_rate,
        "seeds": list(seeds),
        "validation": [record.after for record in found.records],
        "test": found.test(),
        "mean": mean,
        "spread": spread,
        "loss_by_step": {f"{rate:g}": _losses(curve) for rate, curve in found.curves.items()},
        "hardware": first.hardware,
        "versions": first.versions,
    }


def with_more_seeds(result: dict, config: TrainConfig, seeds: Sequence[int]) -> dict:
    """A result of `at_best_rate` with the seeds that it lacks, at the rate that it chose: nothing is chosen anew.

    Args:
        result: Of the same method, model and data.
        config: The run that `result` is of.
        seeds: All that are wanted.

    Raises:
        SystemExit: The result is of another method or of other package versions.
    """
    rate, lacking = result["best_learning_rate"], [seed for seed in seeds if seed not in result["seeds"]]
    if result["method"] != asdict(config.method):
        raise SystemExit(f"{config.output}: the results are of another method: remove them there")
    folder = Path(config.output)
    records = [train(replace(with_rate(config, rate, seed), output=str(folder / f"seed{seed}"))) for seed in lacking]
    if any(record.versions != result["versions"] for record in records):
        raise SystemExit(f"{config.output}: the results are of other package versions: remove them there")
    test = result["test"] + [record.metrics[f"test_{record.goal}"] for record in records]
    more = {
        "seeds": result["seeds"] + lacking,
        "validation": result["validation"] + [record.after for record in records],
        "test": test,
        "mean": statistics.mean(test),
        "spread": statistics.stdev(test),
    }
    return result | more


def _losses(curve: Iterable[dict[str, float]]) -> list[list[float]]:
    return [[entry["step"], round(entry["loss"], 4)] for entry in curve if "loss" in entry]


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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs at the best rate")
    parser.add_argument("--runs", type=Path, default=Path(runs), help="folder of the runs")
    return parser.parse_args()


def reported(file_name: str) -> dict[str, dict]:
    """What a file of results holds: method -> its result."""
    path = RESULTS / file_name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def report(file_name: str, name: str, result: dict) -> None:
    """Print one method's result and put it into a file of results, which several processes may be filling."""
    spread = "" if result["spread"] is None else f" ± {result['spread']:.2g}"
    print(f"{name}: {result['mean']:.4g}{spread} at {result['best_learning_rate']:g}", flush=True)
    summary = reported(file_name) | {name: result}
    # The curves take a line each.
    text = re.sub(r"\[\s+([-\d.e+]+),\s+([-\d.e+]+)\s+\],?\s*", r"[\1, \2], ", json.dumps(summary, indent=1))
    (RESULTS / file_name).write_text(text.replace(", ]", "]") + "\n", encoding="utf-8")
