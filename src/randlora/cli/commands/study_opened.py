"""A study as the words of a command name it: by its suite or by its folder."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from randlora.cli.commands.needs import require, training
from randlora.files import expanded
from randlora.messages import note

if TYPE_CHECKING:
    from randlora.studies.study import Study


def add_suite(parser: argparse.ArgumentParser) -> None:
    """Let a command take a study, and keys of its suite."""
    parser.add_argument("suite", help="YAML file, or the folder of a study that was begun")
    parser.add_argument("--output", help="the study's folder (runs/study/NAME)")
    parser.add_argument(
        "--storage", metavar="URL", help="of a database for the queue (where it was begun, or a journal)"
    )
    parser.set_defaults(takes_overrides=True)


def open_study(arguments: argparse.Namespace, overrides: Sequence[str], *, planned: bool = True) -> "Study":
    """The study that a command was given; a `planned` one as `study run` last planned it, with the words beside it."""
    return _opened(arguments.suite, overrides, arguments.output, arguments.storage, planned)


def study_at(place: str) -> "Study":
    """A study by its suite or folder alone, as `study run` last planned it."""
    return _opened(place, (), None, None, planned=True)


def _opened(place: str, overrides: Sequence[str], output: str | None, storage: str | None, planned: bool) -> "Study":
    training()
    require("optuna", "scipy")
    from randlora.studies.schema import SUITE_FILE, load_suite
    from randlora.studies.study import Study, study_folder

    given = expanded(place)
    folder: str | Path | None = output or (given if given.is_dir() else None)
    suite = load_suite(given, overrides)
    if planned and not overrides:
        copy = study_folder(suite, folder) / SUITE_FILE
        plan = load_suite(copy) if copy.is_file() else suite
        if plan != suite:
            note(f"{copy.parent} goes by the plan of its last `randlora study run`, which differs from {given}")
        suite = plan
    return Study(suite, folder, storage)
