"""Analyses of finished runs: what a training did to its model."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randlora.cli.commands.needs import add_trust, require
from randlora.files import expanded

if TYPE_CHECKING:
    from randlora.result import Result


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

    parser = analyses.add_parser("cka", help="how alike the features of runs are, by layer", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs of one base")
    parser.add_argument("--against", help="the run that each is compared with, such as a full fine-tuning")
    _add_data(parser, "1024")
    parser.add_argument("--batch-size", type=int, default=64, help="examples compared with each other (64)")
    _add_common(parser)
    parser.set_defaults(call=cka, interrupted="interrupted")

    parser = analyses.add_parser("landscape", help="the loss in the plane of three runs", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of three finished runs of one base")
    parser.add_argument(
        "--plane", choices=("paper", "orthonormal"), default="paper", help="coordinates of the plane (paper)"
    )
    parser.add_argument("--grid", type=int, default=11, help="points on each axis (11)")
    parser.add_argument("--margin", type=float, default=0.5, help="what is shown around the triangle (0.5)")
    _add_data(parser, "512")
    _add_common(parser)
    parser.set_defaults(call=landscape, interrupted="interrupted; the same command again goes on with the next point")

    parser = analyses.add_parser("transfer", help="scores on data that runs did not see", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs of one base")
    parser.add_argument("--data", required=True, help="a config whose test data are taken, or data")
    _add_common(parser)
    parser.set_defaults(call=transfer, interrupted="interrupted")

    parser = analyses.add_parser("theory", help="how near RandLoRA and LoRA come to a given ΔW", allow_abbrev=False)
    parser.add_argument("--output", default="theory", help="folder for table, numbers and pictures (theory)")
    parser.add_argument("--rows", type=int, default=96, help="of ΔW (96)")
    parser.add_argument("--columns", type=int, default=64, help="of ΔW (64)")
    parser.add_argument("--seed", type=int, default=0, help="of ΔW (0)")
    parser.set_defaults(call=theory, interrupted="interrupted")


def _add_data(parser: argparse.ArgumentParser, examples: str) -> None:
    parser.add_argument("--split", choices=("test", "validation"), help="the data (validation if there is one)")
    parser.add_argument("--examples", type=int, default=int(examples), help=f"how many, at most ({examples})")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", help="folder for table, numbers and pictures (analysis/ in the first run)")
    add_trust(parser)


def _folder(arguments: argparse.Namespace, first: str) -> Path:
    """Where to write to, checked before anything is computed."""
    require("pydantic", "datasets", "matplotlib")
    from randlora.analysis.folder import output_folder

    return output_folder(arguments.output or expanded(first) / "analysis")


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


def cka(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora analyze cka RUN RUN… [--against RUN]`."""
    folder = _folder(arguments, arguments.runs[0])
    from randlora.analysis.cka import analyze_cka

    result = analyze_cka(
        arguments.runs,
        arguments.against,
        split=arguments.split,
        examples=arguments.examples,
        batch_size=arguments.batch_size,
        trust_remote_code=arguments.trust_remote_code,
    )
    return _tell(result, folder)


def landscape(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora analyze landscape RUN RUN RUN`."""
    folder = _folder(arguments, arguments.runs[0])
    from randlora.analysis.landscape import analyze_landscape

    result = analyze_landscape(
        arguments.runs,
        folder,
        plane=arguments.plane,
        grid=arguments.grid,
        margin=arguments.margin,
        split=arguments.split,
        examples=arguments.examples,
        trust_remote_code=arguments.trust_remote_code,
    )
    return _tell(result, folder)


def transfer(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora analyze transfer RUN… --data CONFIG_OR_FILE`."""
    folder = _folder(arguments, arguments.runs[0])
    from randlora.analysis.transfer import analyze_transfer

    result = analyze_transfer(arguments.runs, arguments.data, trust_remote_code=arguments.trust_remote_code)
    return _tell(result, folder)


def theory(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """`randlora analyze theory [--output DIR]`."""
    folder = _folder(arguments, "")
    from randlora.analysis.theory import analyze_theory

    return _tell(analyze_theory(arguments.rows, arguments.columns, seed=arguments.seed), folder)
