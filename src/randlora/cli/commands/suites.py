"""`evaluate` on suites of others: the commonsense tasks of LLM-Adapters, and those of lm-evaluation-harness."""

import argparse
from collections.abc import Sequence
from typing import Any

from randlora.cli.commands.needs import training
from randlora.errors import ConfigError

_NEEDS = {"protocol": "commonsense", "tasks": "commonsense", "limit": None, "batch_size": None}
"""Options, and those without which they have no use; None stands for either suite."""


def add_suites(parser: argparse.ArgumentParser) -> None:
    """Add the options to `evaluate`."""
    group = parser.add_argument_group("suites, in place of the run's own data")
    group.add_argument("--commonsense", metavar="FOLDER", help="score LLM-Adapters' tasks, FOLDER/TASK/test.json")
    group.add_argument(
        "--protocol",
        choices=("fixed", "faithful"),
        help="of --commonsense: as the run was trained (fixed), or with the reference's faults, for its tables",
    )
    group.add_argument("--tasks", help="of --commonsense, such as ARC-Easy,boolq (all that FOLDER has)")
    group.add_argument("--limit", type=int, help="examples of each task, from its beginning (all)")
    group.add_argument("--batch-size", type=int, help="examples that are answered together (8)")


def asks_for_suite(arguments: argparse.Namespace) -> bool:
    """Whether the words ask for a suite.

    Raises:
        ConfigError: They ask for a suite's options without one, or for a split beside one.
    """
    wanted = arguments.commonsense is not None
    for option, suite in _NEEDS.items():
        if getattr(arguments, option) is not None and not (wanted if suite is None else getattr(arguments, suite)):
            raise ConfigError(f"--{option.replace('_', '-')}", expected=f"--{suite or 'commonsense'} with it")
    if wanted and arguments.split is not None:
        raise ConfigError("--split", expected="none with a suite, which has data of its own", got=arguments.split)
    return wanted


def evaluate_suite(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora evaluate RUN --commonsense FOLDER […]`."""
    training()
    options = {
        "model": _only_model(overrides),
        "limit": arguments.limit,
        "batch_size": 8 if arguments.batch_size is None else arguments.batch_size,
        "trust_remote_code": arguments.trust_remote_code,
    }
    return _commonsense(arguments, options)


def _only_model(overrides: Sequence[str]) -> str | None:
    """The value of --model, the one key of a run that may be other than in training."""
    words = [part for word in overrides for part in (word.split("=", 1) if word.startswith("--model=") else [word])]
    if not words:
        return None
    if words[0] != "--model" or len(words) != 2:
        wrong = next((word for word in words if word.startswith("--") and word != "--model"), words[0])
        raise ConfigError(wrong, expected="--model PATH, or an option of the suite", hint="the run fixes the rest")
    return words[1]


def _commonsense(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    from dataclasses import asdict

    from randlora.report import Column, text_table
    from randlora.report.table import count, percent
    from randlora.training.language.commonsense import evaluate_commonsense

    tasks = None if arguments.tasks is None else arguments.tasks.split(",")
    protocol: Any = arguments.protocol or "fixed"
    result = evaluate_commonsense(arguments.run, arguments.commonsense, protocol=protocol, tasks=tasks, **options)
    rows = [asdict(score) for score in result.tasks]
    rows.append({"task": "mean", "generated": result.generated, "likelihood": result.likelihood})
    columns = (
        Column("task", "task"),
        Column("examples", "examples", count),
        Column("generated (%)", "generated", percent),
        Column("no answer (%)", "unanswered", percent),
        Column("likelihood (%)", "likelihood", percent),
    )
    print(text_table(rows, columns))
    print(f"protocol {protocol}; {result.file}")
    return 0
