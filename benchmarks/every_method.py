"""Does every method train? Its defaults on Banking77 with MiniLM-L6, one epoch, at its best learning rate.

    python benchmarks/every_method.py --train train.csv --test test.csv

A tenth of the training data is set apart. Each method is tried at three learning rates a factor of about 3 apart, and
beyond them while the best on that tenth is at an edge; the best is repeated with the other seeds and scored on the test
data. These are the methods' own defaults (but for OPTIONS) and not equal parameters: what is shown is that each learns
and where, not which one is better. Needs the `bench` extra, and Banking77 as CSV files with the columns `text` and
`category`. Runs are kept in --runs and not repeated; the summary goes to benchmarks/results/every_method.json.
"""

from dataclasses import replace

from accuracy import at_best_rate, command_line, report
from banking77 import base_config
from randlora.training import MethodConfig

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
# Where each search begins: the middle one of its first three rates.
MIDDLE = {
    "randlora": 3e-3,
    "lora": 3e-3,
    "full": 3e-4,
    "randlora_a": 1e-2,
    "randlora_b": 3e-3,
    "dora": 3e-3,
    "vera": 3e-2,
    "nola": 1e-2,
    "pranc": 3e-3,
    "adalora": 1e-2,
    "pissa": 1e-3,
    "lora_xs": 1e-2,
    "svft": 3e-2,
    "hydralora": 3e-3,
    "peft_randlora": 3e-3,
    "spectral": 3e-3,
    "hybrid": 3e-3,
    "kradapter": 1e-3,
    "rslora": 1e-3,
    "vblora": 1e-2,
    "fourierft": 3e-2,
    "loha": 3e-3,
    "lokr": 3e-3,
    "hira": 1e-2,
    "miss": 1e-3,
    "shira": 3e-3,
    "c3a": 1e-1,
    "oft": 3e-3,
    "boft": 3e-3,
    "hra": 3e-3,
    "ia3": 1e-2,
}
# Where a default does not fit MiniLM's width of 384: the largest power of two that divides it.
OPTIONS = {"vblora": {"vector_length": 128}, "c3a": {"block_size": 128}}


def main() -> None:
    """Run what is not run yet and write the summary."""
    arguments = command_line(__doc__, MIDDLE, "runs/every-method")
    base = base_config(arguments.train, arguments.test, "--optimization.epochs", "1")
    for name in arguments.methods:
        targets = None if name == "full" else base.method.target_modules
        method = MethodConfig(name=name, target_modules=targets, options=OPTIONS.get(name, {}))
        middle = RATES.index(MIDDLE[name])
        rates = RATES[middle - 1 : middle + 2]
        result = at_best_rate(replace(base, method=method, output=str(arguments.runs / name)), rates, arguments.seeds)
        report("every_method.json", name, result)


if __name__ == "__main__":
    main()
