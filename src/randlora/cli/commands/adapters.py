"""Adapters: merge, convert, look inside, compare the methods."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from randlora.cli.commands.needs import add_trust, require
from randlora.errors import ConfigError


def add_to(actions: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands."""
    parser = actions.add_parser("merge", help="merge an adapter into its base model", allow_abbrev=False)
    parser.add_argument("source", help="a run's folder, or an adapter folder")
    parser.add_argument("--output", required=True, help="folder to write, new or empty")
    parser.add_argument("--model", help="where the base model is, if not where training had it")
    add_trust(parser)
    parser.set_defaults(call=merge)

    parser = actions.add_parser(
        "convert", help="PEFT's RandLora adapter to ours, or back; or to LoRA", allow_abbrev=False
    )
    parser.add_argument("source", help="an adapter folder; for LoRA also a run's folder")
    parser.add_argument("--output", required=True, help="folder to write, new or empty")
    parser.add_argument("--to", choices=("lora",), help="write the nearest LoRA of a rank in place of an exact copy")
    parser.add_argument("--rank", type=int, help="the LoRA's rank")
    parser.add_argument("--model", help="for LoRA: where the base model is, if not where training had it")
    add_trust(parser)
    parser.set_defaults(call=convert)

    parser = actions.add_parser("inspect", help="layers, numbers, ranks and bytes", allow_abbrev=False)
    parser.add_argument("target", help="an adapter folder, a run's folder, or a config file of a planned run")
    add_trust(parser)
    parser.set_defaults(call=inspect, takes_overrides=True)

    parser = actions.add_parser("methods", help="equation, cost and rank of every method", allow_abbrev=False)
    parser.set_defaults(call=methods)


def merge(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora merge RUN --output DIR`."""
    require("pydantic")
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
    require("pydantic")
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


def inspect(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora inspect ADAPTER | RUN | CONFIG.yaml [--key value …]`."""
    require("pydantic")
    from randlora.report import Column, text_table
    from randlora.tasks.paths import local
    from randlora.training import load_config
    from randlora.training.inspection import inspect_adapter, inspect_run

    target = local(arguments.target)
    if target.is_file():
        config = load_config(target, overrides)
        found = inspect_run(replace(config, trust_remote_code=arguments.trust_remote_code))
    elif overrides:
        raise ConfigError(overrides[0], expected="a config file with it", got=f"{target}, whose training is over")
    else:
        found = inspect_adapter(target / "adapter" if (target / "adapter").is_dir() else target)
    if found.layers:
        numbers = ("r", "num_bases", "trained", "rank")
        columns = [Column("layer", "name"), *(Column(name, name, "{:,}".format) for name in numbers)]
        print(text_table([asdict(layer) for layer in found.layers], columns))
    size = f"{found.trained:,} trained numbers, {found.adapter_bytes:,} bytes"
    print(f"{found.title}: {'' if found.adapted is None else f'{found.adapted} layers, '}{size}")
    if found.training_bytes is not None:
        print(
            f"bases in memory: {found.bases_bytes / 2**20:.1f} MiB; expected memory in training, "
            f"without activations: {found.training_bytes / 2**20:.0f} MiB"
        )
    if found.prediction is not None and found.prediction.peak_bytes is not None:
        print(f"predicted peak memory of a run: {found.prediction.peak_bytes / 2**20:,.0f} MiB")
        print(f"  with activations, for batches of {found.prediction.assumed}")
    elif found.prediction is not None:
        print(f"the peak is not predicted; {found.prediction.assumed}")
    return 0


def methods(_arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora methods`."""
    from randlora.report import Column, text_table
    from randlora.training.overview import PROMPT_CLASSES, overview, prompt_overview

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
    print("On q, k, v, up and down of Llama-3-8B; rank of a 4096 x 4096 layer; bytes of an adapter in float32.\n")
    columns = [
        Column("prompts", "method"),
        Column("trained inputs", "equation"),
        Column("trained", "trained", "{:,}".format),
        Column("MB", "stored_bytes", lambda value: f"{value / 1e6:.2f}"),
    ]
    print(text_table([asdict(row) for row in prompt_overview()], columns))
    print(f"On CLIP ViT-B/16 or B/32, {PROMPT_CLASSES} classes in training; they adapt no layer and cannot be merged.")
    return 0
