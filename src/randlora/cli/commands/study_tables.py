"""What studies found: the table of one, and the mean ranks over several."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from randlora.cli.commands.needs import require, training
from randlora.cli.commands.study_opened import add_suite, open_study, study_at
from randlora.errors import ConfigError, OutputError
from randlora.files import expanded


def add_to(verbs: "argparse._SubParsersAction[Any]") -> None:
    """Add the verbs."""
    parser = verbs.add_parser("table", help="what was found, the paper's figures beside it", allow_abbrev=False)
    add_suite(parser)
    _add_format(parser)
    parser.set_defaults(call=table, interrupted="interrupted")

    parser = verbs.add_parser(
        "ranks", help="mean ranks over several studies, at equal trained numbers", allow_abbrev=False
    )
    what = "suites or folders of studies, or their tables in JSON"
    parser.add_argument("studies", nargs="+", metavar="STUDY", help=what)
    what = "those to rank, such as lora,randlora/structured (one method of two names)"
    parser.add_argument("--methods", help=what)
    _add_format(parser)
    parser.set_defaults(call=ranks, interrupted="interrupted", takes_words="studies")


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("markdown", "csv", "json"), help="in place of text for the terminal")
    parser.add_argument("--to", metavar="FILE", help="file to write to, in place of the terminal")


def table(arguments: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`randlora study table SUITE [--format markdown|csv|json] [--to FILE]`."""
    from randlora.report.study import FORMATS, study_in_text
    from randlora.studies.table import study_table

    _check_to(arguments.to)
    study = open_study(arguments, overrides)
    return _write(FORMATS.get(arguments.format, study_in_text)(study_table(study)), arguments.to)


def ranks(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora study ranks STUDY STUDY … [--methods A,B/C] [--format markdown|csv|json] [--to FILE]`."""
    training()
    require("optuna", "scipy")
    from randlora.report.study_ranks import FORMATS, ranks_in_text
    from randlora.studies.across import ranks_across

    _check_to(arguments.to)
    methods = [[name.strip() for name in own.split("/")] for own in (arguments.methods or "").split(",") if own.strip()]
    result = ranks_across(_tables(arguments.studies), methods)
    return _write(FORMATS.get(arguments.format, ranks_in_text)(result), arguments.to)


def _tables(places: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The tables of studies by their names; of those that share theirs, by where they lie."""
    from randlora.studies.across import read_table
    from randlora.studies.table import study_table

    found: dict[Any, Mapping[str, Any]] = {}
    for place in places:
        path = expanded(place)
        study = None if path.suffix == ".json" else study_at(place)
        key = (path if study is None else study.folder).resolve()
        if key in found:
            raise ConfigError(place, expected="each study once", got="it twice")
        found[key] = read_table(path) if study is None else study_table(study).data
    names = Counter(table["suite"] for table in found.values())
    return {
        table["suite"] if names[table["suite"]] == 1 else place: table
        for place, table in zip(places, found.values(), strict=True)
    }


def _check_to(to: str | None) -> None:
    if to is not None and expanded(to).is_dir():
        raise OutputError("--to", expected="a file", got=f"{to}, a folder")


def _write(text: str, to: str | None) -> int:
    from randlora.files import write_atomically, writing

    if to is None:
        print(text.rstrip("\n"))
        return 0
    path = expanded(to)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text if text.endswith("\n") else f"{text}\n")
    print(path)
    return 0
