"""The whole demo: pre-train, adapt eight times, tabulate and draw."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from randlora.demo.arms import SETTINGS, Arm, Setting, build_arms
from randlora.demo.digits import write_digits
from randlora.demo.pretrain import PretrainRecipe, pretrained_clip
from randlora.errors import OutputError
from randlora.files import expanded, new_folder
from randlora.report import Column, markdown_table, run_columns, text_table
from randlora.report.page.write import write_page
from randlora.report.plots import comparison
from randlora.training import Record, train

COLUMNS = (
    Column("digits", "setting"),
    Column("method", "label"),
    Column("rank", "rank", str),
    Column("learning rate", "learning_rate", "{:g}".format),
    *run_columns("%"),
)
TITLE = (
    "A small CLIP, pre-trained on glyphs, adapted to handwritten digits: test accuracy before and after, and the price"
)

_PARTS = ("digits", "runs", "report", "page")


def run_demo(
    output: str | Path,
    *,
    recipe: PretrainRecipe | None = None,
    settings: Sequence[Setting] = SETTINGS,
    cache: Path | None = None,
    print_line: Callable[[str], object] = print,
) -> list[Record]:
    """Adapt a small CLIP that has only seen printed glyphs to handwritten digits, with four methods.

    Nothing is downloaded. Prints a table and writes, below `output`: `digits/` (the data), `runs/` (a run folder for
    each adaptation), `report/` (the table in Markdown, the picture as PNG and SVG) and `page/` (what `randlora report`
    makes of the runs). Called again on the same folder it goes on where it was stopped.

    Args:
        output: A new or empty folder, or one of an earlier demo.
        recipe: How the CLIP is pre-trained; default: `PretrainRecipe()`, about a minute on two cores.
        settings: How much data the runs see and how long they train.
        cache: Where the pre-trained CLIP is kept; default: `randlora.demo.pretrain.cache_folder()`.
        print_line: Gets the lines for the user.

    Returns:
        The records, setting by setting, method by method.

    Raises:
        OutputError: The output or the cache folder cannot be written, or the output holds something else.
    """
    output = expanded(output)
    recipe = recipe or PretrainRecipe()
    _check(output)
    digits = write_digits(output / "digits", recipe.image_size)
    arms = build_arms(pretrained_clip(recipe, cache), digits, output / "runs", settings)
    rows, records = [], []
    for number, arm in enumerate(arms, start=1):
        print_line(f"[{number}/{len(arms)}] {arm.label}, training digits: {arm.setting}")
        record = train(arm.config)
        records.append(record)
        rows.append(_row(arm, record))
    print_line(f"\n{TITLE}\n\n{text_table(rows, COLUMNS)}\n")
    _write_report(output / "report", rows)
    print_line(f"Table and picture: {output / 'report'}")
    print_line(f"Page: {write_page([output / 'runs'], output / 'page')}")
    return records


def _check(output: Path) -> None:
    """Refuse a folder with anything else in it before a minute is spent."""
    if output.exists() and not (output.is_dir() and all(entry.name in _PARTS for entry in output.iterdir())):
        raise OutputError(
            "output",
            expected="a new or empty folder, or one of an earlier demo",
            got=f"{output}, which holds other files",
            hint="choose another folder",
        )


def _row(arm: Arm, record: Record) -> dict[str, Any]:
    """The record with what the table and the picture show of the arm."""
    method = arm.config.method
    return {
        **record.row(),
        "setting": arm.setting,
        "label": arm.label,
        "rank": None if method.name == "full" else method.r,
        "learning_rate": arm.config.optimization.learning_rate,
    }


def _write_report(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier call on the same runs
    figure = comparison(rows, TITLE)
    with new_folder(folder) as unfinished:
        (unfinished / "table.md").write_text(markdown_table(rows, COLUMNS) + "\n", encoding="utf-8")
        for suffix in ("png", "svg"):
            figure.savefig(unfinished / f"comparison.{suffix}", dpi=150)
