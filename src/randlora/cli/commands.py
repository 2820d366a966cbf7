"""One function per command: call the library, print the result. Imports are inside, so that --help is quick."""

import argparse
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from randlora.errors import ConfigError, RandLoraError

NAMES = ("train", "search", "evaluate", "merge", "convert", "inspect", "methods", "doctor", "demo")


def _require(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"package {module!r}", expected="to be installed", hint=f"pip install 'randlora[{extra}]'")


def _training() -> ModuleType:
    """The training floor, with its data library kept from drawing bars for every file it opens."""
    _require("pydantic", "train")
    _require("datasets", "train")
    import datasets

    from randlora import training

    datasets.disable_progress_bars()
    return training


def train(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora train CONFIG.yaml [--key value …]`."""
    training = _training()
    if arguments.keys:
        from randlora.training.config.help import keys_in_words

        print(keys_in_words())
        return 0
    if arguments.config is None:
        raise ConfigError("config", expected="a YAML file", got="none", hint="randlora train CONFIG.yaml")
    config = training.load_config(arguments.config, overrides)
    record = training.train(config)
    print(
        f"{record.method}: {_scores(record)}"
        f"{record.trainable_parameters:,} trained numbers, {record.adapter_bytes:,} bytes, "
        f"{record.train_seconds:.0f} s; {config.output}"
    )
    return 0


def _scores(record: Any) -> str:
    """The goal before and after training, and on the test split where that is another, each with a comma behind it."""
    words = []
    if record.before is not None and record.after is not None:
        words.append(f"{record.split} {record.goal} {record.before:.2f} -> {record.after:.2f} {record.unit}".strip())
    tested = record.metrics.get(f"test_{record.goal}")
    if record.split != "test" and tested is not None:
        words.append(f"test {record.goal} {tested:.2f} {record.unit}".strip())
    return "".join(f"{part}, " for part in words)


def search(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora search CONFIG.yaml --rates 1e-3,3e-3,1e-2 [--seeds 0,1,2] [--key value …]`."""
    training = _training()
    config = training.load_config(arguments.config, overrides)
    rates, seeds = _numbers("--rates", arguments.rates, float), _numbers("--seeds", arguments.seeds, int)
    found = training.search(config, rates, seeds)
    goal, unit = found.records[0].goal, found.records[0].unit
    for rate, value in found.validation.items():
        shown = "diverged" if value is None else f"{value:.2f} {unit}".strip()
        print(f"{'*' if rate == found.learning_rate else ' '} learning rate {rate:g}: validation {goal} {shown}")
    if f"test_{goal}" in found.records[0].metrics:
        mean, spread = found.mean_and_spread()
        around = "" if spread is None else f" ± {spread:.2f}"
        print(f"test {goal} at {found.learning_rate:g}: {mean:.2f}{around} {unit}; {config.output}")
    return 0


def _numbers(name: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        expected = "numbers with commas between them" if kind is float else "whole numbers with commas between them"
        raise ConfigError(name, expected=expected, got=repr(text)) from error


def evaluate(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora evaluate RUN [--data.test …]`."""
    scores = _training().evaluate(
        arguments.run, overrides, split=arguments.split, trust_remote_code=arguments.trust_remote_code
    )
    print(json.dumps(scores, indent=2))
    return 0


def merge(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora merge RUN --output DIR`."""
    _require("pydantic", "train")
    from randlora.training.merge import merge as merge_into

    trust = arguments.trust_remote_code
    written = merge_into(arguments.source, arguments.output, arguments.model, trust_remote_code=trust)
    print(f"merged model written to {written}")
    return 0


def convert(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora convert ADAPTER --output DIR [--to lora --rank K]`."""
    if arguments.to == "lora":
        return _convert_to_lora(arguments)
    for name in ("rank", "model"):
        if getattr(arguments, name) is not None:
            raise ConfigError(f"--{name}", expected="--to lora with it", got="none")
    from randlora.methods.randlora.convert import convert as convert_folder

    print(f"{convert_folder(arguments.source, arguments.output)}: {arguments.output}")
    return 0


def _convert_to_lora(arguments: argparse.Namespace) -> int:
    _require("pydantic", "train")
    if arguments.rank is None:
        raise ConfigError("--rank", expected="the rank of the LoRA", got="none")
    from randlora.formats.export import export_lora
    from randlora.report import Column, text_table
    from randlora.training.adapted import load_adapted

    adapted, _ = load_adapted(arguments.source, arguments.model, trust_remote_code=arguments.trust_remote_code)
    exported = export_lora(adapted, arguments.rank, arguments.output)
    columns = [Column("layer", "name"), Column("energy", "energy", "{:.4f}".format)]
    print(text_table([asdict(layer) for layer in exported.layers], columns))
    print(
        f"LoRA of rank {exported.rank} in {arguments.output} holds {exported.mean_energy:.4f} of the energy of ΔW on "
        f"average, in the worst layer, {exported.worst.name}, {exported.worst.energy:.4f}"
    )
    return 0


def methods(_arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora methods`."""
    from randlora.report import Column, text_table
    from randlora.training.overview import overview

    columns = [
        Column("method", "method"),
        Column("ΔW", "equation"),
        Column("trained", "trained", "{:,}".format),
        Column("%", "percent", "{:.3f}".format),
        Column("paper, %", "paper", lambda value: f"{value:g}"),
        Column("rank", "rank", "{:,}".format),
        Column("MB", "stored_bytes", lambda value: f"{value / 1e6:.1f}"),
        Column("merges", "mergeable", lambda value: "yes" if value else "no"),
    ]
    print(text_table([asdict(row) for row in overview()], columns))
    print("On q, k, v, up and down of Llama-3-8B; rank of a 4096 x 4096 layer; bytes of an adapter in float32.")
    return 0


def inspect(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora inspect ADAPTER | RUN | CONFIG.yaml [--key value …]`."""
    _require("pydantic", "train")
    from randlora.report import Column, text_table
    from randlora.training import load_config
    from randlora.training.inspection import inspect_adapter, inspect_run

    target = Path(arguments.target)
    if target.is_file():
        config = load_config(target, overrides)
        found = inspect_run(replace(config, trust_remote_code=arguments.trust_remote_code))
    else:
        found = inspect_adapter(target / "adapter" if (target / "adapter").is_dir() else target)
    if found.layers:
        numbers = ("r", "num_bases", "trained", "rank")
        columns = [Column("layer", "name"), *(Column(name, name, "{:,}".format) for name in numbers)]
        print(text_table([asdict(layer) for layer in found.layers], columns))
    print(
        f"{found.title}: {len(found.layers)} layers, {found.trained:,} trained numbers, {found.adapter_bytes:,} bytes"
    )
    if found.training_bytes is not None:
        print(
            f"bases in memory: {found.bases_bytes / 2**20:.1f} MiB; expected memory in training, float32, "
            f"without activations: {found.training_bytes / 2**20:.0f} MiB"
        )
    return 0


def doctor(_arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora doctor`; exit code 2 where something does not work."""
    from randlora.training.doctor import examine

    checks = examine()
    width = max(len(name) for name, _, _ in checks)
    for name, found, well in checks:
        print(f"{'ok ' if well else 'BAD'}  {name:<{width}}  {found}")
    if not all(well for _, _, well in checks):
        raise RandLoraError("doctor", expected="all checks to pass", hint="the lines marked BAD say what does not work")
    return 0


def demo(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora demo`."""
    _require("matplotlib", "demo")
    _require("sklearn", "demo")
    from randlora.demo import run_demo

    run_demo(arguments.output)
    return 0
