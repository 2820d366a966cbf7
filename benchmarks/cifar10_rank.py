"""Does the rank of the update matter? The paper's Tables 2 and 3 on CIFAR-10, with a small CLIP far from its images.

    python benchmarks/cifar10_rank.py --train train.parquet --test test.parquet

The CLIP is that of `glyph_clip.py`, to which photographs are new; both its towers are adapted to CIFAR-10 (columns
`image` and `label`). RandLoRA has bases of rank 4; every other method but full fine-tuning trains about as many
numbers. A tenth of the training data is set apart. Each method is tried at three learning rates with the first seed,
and beyond them while the best on that tenth is at an edge; its best one is repeated with the other seeds, and only
these runs are scored on the test data.
Runs are kept in --runs and not repeated; the summary goes to benchmarks/results/cifar10_rank.json. A method that is in
there keeps its rate and gets the seeds that it lacks.
"""

from dataclasses import replace

from accuracy import SUITES, at_best_rate, command_line, report, reported, with_lora_merged, with_more_seeds
from glyph_clip import RECIPE
from randlora.demo.pretrain import pretrained_clip
from randlora.training import MethodConfig, TrainConfig, load_config

VALIDATION = 0.1
LORA_PART = 5  # rank of the LoRA in "hybrid" and before "refine"
RATES = (1e-3, 3e-3, 1e-2)


def _randlora(bases: str, sparsity: float | str | None = None) -> MethodConfig:
    return MethodConfig(name="randlora", r=4, bases=bases, sparsity=sparsity)


METHODS = {
    # Table 2; the rank of ΔW in a layer of 128 × 128 is at most 11, 4, 64, 128 and 128.
    "lora": MethodConfig(name="lora", r=11),
    "randlora-a": MethodConfig(name="randlora_a", r=4),
    "randlora-b": MethodConfig(name="randlora_b", r=4, bases="uniform"),
    "uniform": _randlora("uniform"),
    "full": MethodConfig(name="full"),
    # Table 3.
    "normal": _randlora("normal"),
    "ternary s=2": _randlora("ternary", 2.0),
    "ternary s=6": _randlora("ternary", 6.0),
    "ternary s=sqrt": _randlora("ternary", "sqrt"),
    "ternary s=100": _randlora("ternary", 100.0),
    "ternary s=200": _randlora("ternary", 200.0),
    "structured": _randlora("structured"),
    # What the paper leaves as future work: bases from W₀; LoRA and RandLoRA together, and one after the other.
    "spectral": MethodConfig(name="spectral", r=4),
    "hybrid": MethodConfig(name="hybrid", r=8, bases="uniform", options={"lora_r": LORA_PART}),
    "refine": MethodConfig(name="randlora", r=8, bases="uniform"),
    # Others of high rank; kradapter has no rank to choose and trains 7 % more.
    "hira": MethodConfig(name="hira", r=11),
    "kradapter": MethodConfig(name="kradapter"),
}


def base_config(train: str, test: str) -> TrainConfig:
    """What all runs share: the suite, with the CLIP that has seen glyphs only and CIFAR-10 from files."""
    overrides = {
        "model": str(pretrained_clip(RECIPE)),
        "data.train": train,
        "data.test": test,
        "data.validation": str(VALIDATION),
        "data.image_column": "image",
        "data.shots": "null",
        "data.prompt_templates": "['a photo of a {}.']",
        "optimization.epochs": "4",
        "optimization.batch_size": "64",
    }
    return load_config(SUITES / "cifar10-clip.yaml", [part for k, v in overrides.items() for part in (f"--{k}", v)])


def config_of(name: str, base: TrainConfig) -> TrainConfig:
    """A method's run but for its learning rate, seed and output."""
    method = METHODS[name]
    if method.name != "full":
        method = replace(method, target_modules=base.method.target_modules)
    return replace(base, method=method)


def main() -> None:
    """Run what is not run yet and write the summary."""
    arguments = command_line(__doc__, METHODS, "runs/cifar10-rank")
    base, known = base_config(arguments.train, arguments.test), reported("cifar10_rank.json")
    for name in arguments.methods:
        config = replace(config_of(name, base), output=str(arguments.runs / name.replace(" ", "-")))
        if name == "refine":
            config = with_lora_merged(config, LORA_PART, RATES)
        if name in known:
            result = with_more_seeds(known[name], config, arguments.seeds)
        else:
            result = at_best_rate(config, RATES, arguments.seeds)
        report("cifar10_rank.json", name, result)


if __name__ == "__main__":
    main()
