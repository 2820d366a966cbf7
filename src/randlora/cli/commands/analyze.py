"""Analyses of finished runs: what a training did to its model."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randlora.cli.commands.needs import add_trust, require

if TYPE_CHECKING:
    from randlora.analysis import Result


def add_to(actions: "argparse._SubParsersAction[Any]") -> None:
    """Add the command."""
    parser = actions.add_parser("analyze", help="see what a training did to its model", allow_abbrev=False)
    analyses = parser.add_subparsers(dest="analysis", required=True, metavar="ANALYSIS")

    parser = analyses.add_parser("spectrum", help="singular values and ranks of ΔW by layer", allow_abbrev=False)
    parser.add_argument("source", help="a run's folder, or an adapter folder")
    parser.add_argument("--model", help="where the base model is, if not where training had it")
    parser.add_argument("--directions", type=int, default=16, help="W₀'s leading directions ΔW is held against (16)")
    parser.add_argument(
        "--exact-side", type=int, default=2048, help="larger layers are looked at by a randomized decomposition (2048)"
    )
    _add_common(parser)
    parser.set_defaults(call=spectrum, interrupted="interrupted")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", help="folder for table, numbers and pictures (analysis/ in the first run)")
    add_trust(parser)


def _folder(arguments: argparse.Namespace, first: str) -> Path:
    """Where to write to, checked before anything is computed."""
    require("pydantic", "train")
    require("datasets", "train")
    require("matplotlib", "report")
    from randlora.analysis.folder import output_folder

    return output_folder(arguments.output or Path(first).expanduser() / "analysis")


def _tell(result: "Result", folder: Path) -> int:
    from randlora.report.analysis import files_in_words, in_text, write_result

    written = write_result(result, folder)
    print(in_text(result))
    print(files_in_words(written))
    return 0


def spectrum(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora analyze spectrum RUN [--output DIR]`."""
    folder = _folder(arguments, arguments.source)
    from randlora.analysis.spectra import analyze_spectrum

    result = analyze_spectrum(
        arguments.source,
        arguments.model,
        directions=arguments.directions,
        exact_side=arguments.exact_side,
        trust_remote_code=arguments.trust_remote_code,
    )
    return _tell(result, folder)
