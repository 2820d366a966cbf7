"""`evaluate` on suites of others: LLM-Adapters' commonsense tasks, the E2E challenge, lm-evaluation-harness."""

import argparse
from collections.abc import Sequence
from typing import Any

from randlora.cli.commands.needs import require, training
from randlora.errors import ConfigError

_SUITES = ("commonsense", "e2e", "harness")

_NEEDS = {
    "protocol": ("commonsense",),
    "tasks": ("commonsense",),
    "harness_tasks": ("harness",),
    "limit": _SUITES,
    "batch_size": _SUITES,
}
"""Options, and the suites that have a use for them."""


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
    group.add_argument("--e2e", metavar="FILE", help="say the E2E challenge's meanings, of a file with mr and ref")
    group.add_argument("--harness", metavar="TASKS", help="score tasks of lm-evaluation-harness, such as arc_easy,piqa")
    group.add_argument(
        "--harness-tasks", metavar="FOLDER", help="of --harness: more tasks, YAML files whose Python code is run"
    )
    group.add_argument("--limit", type=int, help="examples of each task, from its beginning (all)")
    group.add_argument("--batch-size", type=int, help="examples that are answered together (8)")


def asks_for_suite(arguments: argparse.Namespace) -> bool:
    """Whether the words ask for a suite.

    Raises:
        ConfigError: They ask for a suite's options without it, for two suites, or for a split beside one.
    """
    wanted = [suite for suite in _SUITES if getattr(arguments, suite) is not None]
    for option, suites in _NEEDS.items():
        if getattr(arguments, option) is not None and not set(suites) & set(wanted):
            expected = " or ".join(f"--{suite}" for suite in suites)
            raise ConfigError(f"--{option.replace('_', '-')}", expected=f"{expected} with it", got="none")
    if len(wanted) > 1:
        raise ConfigError(
            "evaluate", expected="one suite at a time", got=" and ".join(f"--{suite}" for suite in wanted)
        )
    if wanted and arguments.split is not None:
        raise ConfigError("--split", expected="none with a suite, which has data of its own", got=arguments.split)
    return bool(wanted)


def evaluate_suite(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora evaluate RUN --commonsense FOLDER […]`, `--e2e FILE […]`, or `--harness TASKS […]`."""
    training()
    options = {
        "model": _only_model(overrides),
        "limit": arguments.limit,
        "batch_size": 8 if arguments.batch_size is None else arguments.batch_size,
        "trust_remote_code": arguments.trust_remote_code,
    }
    if arguments.e2e is not None:
        return _e2e(arguments, options)
    return _commonsense(arguments, options) if arguments.harness is None else _harness(arguments, options)


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


def _e2e(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    require("sacrebleu", "nltk", "pycocoevalcap")
    from dataclasses import asdict

    from randlora.report import Column, text_table
    from randlora.training.language.e2e import evaluate_e2e

    scores, file = evaluate_e2e(arguments.run, arguments.e2e, **options)
    columns = (
        Column("metric", "metric"),
        Column("value", "value", "{:.2f}".format),
        Column("by", "implementation"),
        Column("with the official scripts", "comparable"),
    )
    print(text_table([asdict(score) for score in scores], columns))
    print(file)
    return 0


def _harness(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    require("lm_eval")
    from randlora.report import Column, text_table
    from randlora.report.table import count
    from randlora.training.language.harness import evaluate_harness

    names = [name.strip() for name in arguments.harness.split(",")]
    rows, file = evaluate_harness(arguments.run, names, include=arguments.harness_tasks, **options)
    columns = (
        Column("task", "task"),
        Column("shots", "shots", count),
        Column("examples", "examples", count),
        Column("metric", "metric"),
        Column("value", "value", "{:.4f}".format),
        Column("±", "error", "{:.4f}".format),
    )
    print(text_table(rows, columns))
    print(file)
    return 0
