"""Studies: whole grids of runs, and their tables."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from randlora.cli.commands import study_tables
from randlora.cli.commands.needs import require
from randlora.cli.commands.study_opened import add_suite, open_study
from randlora.errors import ConfigError

if TYPE_CHECKING:
    from randlora.studies.study import Study


def add_to(actions: "argparse._SubParsersAction[Any]") -> None:
    """Add the command."""
    parser = actions.add_parser("study", help="run a whole suite of tasks, methods and budgets", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    parser = verbs.add_parser(
        "run",
        help="plan and run what is missing; the same command again goes on",
        epilog="Any key of the suite can be given as --key value, such as --base.data.train FILE.",
        allow_abbrev=False,
    )
    add_suite(parser)
    parser.add_argument("--retry-failed", action="store_true", help="run again what has failed")
    parser.add_argument("--dry-run", action="store_true", help="show the cells and what they would train, and stop")
    parser.set_defaults(call=run, interrupted=_GOES_ON)

    parser = verbs.add_parser("work", help="help with a study that was begun, from any machine", allow_abbrev=False)
    add_suite(parser)
    parser.add_argument("--retry-failed", action="store_true", help="run again what has failed")
    parser.add_argument("--slurm", type=int, metavar="N", help="submit N workers to SLURM in place of working here")
    parser.add_argument("--partition", help="with --slurm: the partition")
    parser.add_argument("--time", type=int, metavar="MINUTES", help="with --slurm: minutes of a worker")
    parser.add_argument("--gpus", type=int, help="with --slurm: GPUs of a worker")
    parser.add_argument("--cpus", type=int, help="with --slurm: processor cores of a worker")
    parser.set_defaults(call=work, interrupted=_GOES_ON)

    parser = verbs.add_parser("status", help="what is done, running, failed and missing, by cell", allow_abbrev=False)
    add_suite(parser)
    parser.set_defaults(call=status, interrupted="interrupted")

    study_tables.add_to(verbs)


_GOES_ON = "interrupted; the same command again goes on where it was"

_OF_A_JOB = {
    "partition": "slurm_partition",
    "time": "timeout_min",
    "gpus": "slurm_gpus_per_node",
    "cpus": "slurm_cpus_per_task",
}
"""Options of a SLURM worker -> submitit's parameters."""


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora study run SUITE [--dry-run] [--retry-failed] [--key value …]`."""
    study = open_study(arguments, overrides, planned=False)
    if arguments.dry_run:
        _show_plan(study)
        return 0 if _data_fit(study, elsewhere=True) else 2
    return _work(study, retry_failed=arguments.retry_failed)


def work(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora study work SUITE [--slurm N [--partition NAME …]]`."""
    wanted = {field: getattr(arguments, option) for option, field in _OF_A_JOB.items()}
    for option, field in _OF_A_JOB.items():
        if arguments.slurm is None and wanted[field] is not None:
            raise ConfigError(f"--{option}", expected="--slurm with it", got="none")
    if arguments.slurm is not None and arguments.slurm < 1:
        raise ConfigError("--slurm", expected="a number of workers, 1 or more", got=str(arguments.slurm))
    study = open_study(arguments, overrides)
    if arguments.slurm is None:
        return _work(study, retry_failed=arguments.retry_failed)
    require("submitit")
    from randlora.studies.slurm import require_slurm, submit_workers

    require_slurm()
    if not _data_fit(study, elsewhere=True):
        return 2
    study.begin()
    folder = study.folder.resolve()
    words = [sys.executable, "-m", "randlora", "study", "work", str(folder)]
    words += ["--storage", arguments.storage] if arguments.storage else []
    words += ["--retry-failed"] if arguments.retry_failed else []
    jobs = submit_workers(words, folder / "slurm", arguments.slurm, name=study.suite.name, **wanted)
    print(f"submitted {len(jobs)} workers: {', '.join(jobs)}; their logs: {folder / 'slurm'}")
    return 0


def _data_fit(study: "Study", *, elsewhere: bool = False) -> bool:
    """Whether the data of all that is not finished are as runs need them; what is wrong is said. See `data_faults`."""
    from randlora.studies.data import data_faults

    faults = data_faults(study, elsewhere=elsewhere)
    for line in faults:
        print(f"randlora: {line}", file=sys.stderr)
    return not faults


def _work(study: "Study", *, retry_failed: bool) -> int:
    from randlora.report.study import study_in_text
    from randlora.studies.interruption import interrupted_by_signals
    from randlora.studies.table import study_table
    from randlora.studies.worker import check_here
    from randlora.studies.worker import work as take_units

    if not _data_fit(study):
        return 2
    check_here(study)  # nothing is written before
    study.begin()
    with interrupted_by_signals():
        take_units(study, retry_failed=retry_failed)
    print(study_in_text(study_table(study)))
    print(study.folder)
    failed = sum(entry.count("failed") for entry in study.progress())
    if failed:
        runs = "1 run" if failed == 1 else f"{failed} runs"
        line = f"randlora: {runs} failed; `randlora study status` says why, --retry-failed tries again"
        print(line, file=sys.stderr)
    return 2 if failed else 0


def status(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora study status SUITE`."""
    from randlora.report import Column, text_table
    from randlora.report.table import count

    study = open_study(arguments, overrides)
    from randlora.studies.progress import STATES
    from randlora.studies.worker import runs_over_and_left, time_left

    rows, errors, found = [], [], study.progress()
    for entry in found:
        states: dict[str, int] = {state: entry.count(state) for state in STATES}
        states["missing"] += entry.to_come
        chosen = None if entry.chosen is None else f"{entry.chosen:g}"
        rows.append({"column": entry.cell.column, "row": entry.cell.row, **states, "chosen": chosen})
        errors += [f"{unit.words}: {outcome.error}" for unit, outcome in entry.units if outcome.state == "failed"]
    columns = [Column("task", "column"), Column("method", "row")]
    columns += [Column(name, name, count) for name in STATES]
    print(text_table(rows, [*columns, Column("best rate", "chosen", str)]))
    over, left = runs_over_and_left(found)
    running = sum(entry.count("running") for entry in found)
    words = [f"{over} of {over + left} runs are over", time_left(study, left, running)]
    print("\n".join(["; ".join(filter(None, words)), *dict.fromkeys(errors), str(study.folder)]))
    return 0


def _show_plan(study: "Study") -> None:
    from randlora.report import Column, text_table
    from randlora.report.table import binary_bytes, count
    from randlora.studies.plan import plan_of

    plan = plan_of(study)
    unknown = {"trained": count, "memory": binary_bytes}
    shown = [
        row | {key: "unknown" if row[key] is None else form(row[key]) for key, form in unknown.items()}
        for row in plan.rows
    ]
    columns = [Column("task", "column"), Column("method", "row"), Column("trained", "trained", str)]
    if any(row["paper"] for row in plan.rows):
        columns += [Column("paper", "paper", str), Column("ours / paper", "ratio", "{:.3f}".format)]
    columns += [Column("peak memory", "memory", str), Column("learning rates", "rates"), Column("runs", "runs", count)]
    print(text_table(shown, columns))
    total = sum(row["runs"] for row in plan.rows)
    searched = any(len(cell.rates) > 1 for cell in study.cells)
    more = ", and more where the best rate is at an edge" if searched else ""
    print("\n".join([*plan.notes, f"{len(plan.rows)} cells, {total:,} runs{more}; {study.folder}"]))
