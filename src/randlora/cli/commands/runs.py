"""Runs: look at the data, train, search the learning rate, evaluate."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from randlora.cli.commands.needs import add_trust, training
from randlora.cli.commands.suites import add_suites, asks_for_suite, evaluate_suite
from randlora.errors import ConfigError
from randlora.messages import is_first_process


def add_to(actions: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands."""
    parser = actions.add_parser("data", help="look at the data as training will see them", allow_abbrev=False)
    parser.add_argument("config", help="YAML file")
    parser.add_argument("--examples", type=int, default=3, help="examples of the training data to show (3)")
    add_trust(parser)
    parser.set_defaults(call=data, takes_overrides=True, interrupted="interrupted")

    parser = actions.add_parser(
        "train",
        help="train as a config file says; the same command again resumes",
        epilog="Any key of the config can be given as --key value, nested ones as --section.key value; "
        "'randlora train --keys' lists them.",
        allow_abbrev=False,
    )
    parser.add_argument("config", nargs="?", help="YAML file")
    parser.add_argument("--keys", action="store_true", help="list the config's keys and stop")
    parser.set_defaults(call=train, takes_overrides=True)

    parser = actions.add_parser(
        "search", help="find the best learning rate on the validation split, and score test with it", allow_abbrev=False
    )
    parser.add_argument("config", help="YAML file")
    parser.add_argument("--rates", required=True, help="learning rates to begin with, such as 1e-3,3e-3,1e-2")
    parser.add_argument("--seeds", default="0", help="seeds of the runs at the best rate, such as 0,1,2")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="take the lowest rate within this share of the best's score (0)"
    )
    parser.add_argument(
        "--rate-seeds", type=int, default=1, help="how many of the seeds choose the rate, by their mean score (1)"
    )
    parser.set_defaults(call=search, takes_overrides=True)

    parser = actions.add_parser("evaluate", help="measure a finished run", allow_abbrev=False)
    parser.add_argument("run", help="a run's folder")
    parser.add_argument("--split", choices=("test", "validation"), help="which data to score (test)")
    add_suites(parser)
    add_trust(parser)
    parser.set_defaults(call=evaluate, takes_overrides=True, interrupted="interrupted")


def data(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora data CONFIG.yaml [--examples N] [--key value …]`."""
    floor = training()
    from randlora.report import Column, text_table
    from randlora.training.data_view import look_at

    config = replace(floor.load_config(arguments.config, overrides), trust_remote_code=arguments.trust_remote_code)
    view = look_at(config, examples=arguments.examples, colour=sys.stdout.isatty())
    for split, words in view.statistics.items():
        print(f"{split}: {words}")
    if view.counts:
        columns = [Column(name, name, str if name == "class" else "{:,}".format) for name in view.counts[0]]
        print(text_table(view.counts, columns))
    for title, text in view.examples:
        print(f"\n{title}\n{text}")
    return 0


def train(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora train CONFIG.yaml [--key value …]`."""
    floor = training()
    if arguments.keys:
        from randlora.training.config.help import keys_in_words

        print(keys_in_words())
        return 0
    if arguments.config is None:
        raise ConfigError("config", expected="a YAML file", got="none", hint="randlora train CONFIG.yaml")
    config = floor.load_config(arguments.config, overrides)
    record = floor.train(config)
    if not is_first_process():
        return 0
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
    """`randlora search CONFIG.yaml --rates 1e-3,3e-3,1e-2 [--seeds 0,1,2] [--rate-seeds 2] [--tolerance 0.01] …`."""
    floor = training()
    config = floor.load_config(arguments.config, overrides)
    rates, seeds = _numbers("--rates", arguments.rates, float), _numbers("--seeds", arguments.seeds, int)
    found = floor.search(config, rates, seeds, arguments.tolerance, arguments.rate_seeds)
    if not is_first_process():
        return 0
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
    """`randlora evaluate RUN [--data.test …]`, or on a suite."""
    if asks_for_suite(arguments):
        return evaluate_suite(arguments, overrides)
    split = arguments.split or "test"
    scores = training().evaluate(arguments.run, overrides, split=split, trust_remote_code=arguments.trust_remote_code)
    if is_first_process():
        print(json.dumps(scores, indent=2))
    return 0
