"""Trained numbers of the paper's suites beside the paper's: a table of docs/suites.md, which this writes.

`python tests/paper_counts.py` counts every cell of every suite on stand-ins of the paper's models, in half a minute; a
test compares some of its lines.
"""

import tempfile
from pathlib import Path

from pages import with_table
from randlora.report import Column
from randlora.report.table import count, markdown_table
from randlora.studies.cells import cells_of
from randlora.studies.paper import paper_trained, ratio_to_paper
from randlora.studies.schema import load_suite
from randlora.studies.shapes import stand_in
from randlora.studies.sizes import size_of

SUITES = Path(__file__).parent.parent / "suites" / "paper"
PAGE = Path(__file__).parent.parent / "docs" / "suites.md"
BEGIN, END = "<!-- written by tests/paper_counts.py -->\n", "<!-- end of the counts -->\n"


WHY = {
    "glue-roberta-base": "by VeRA's definition; the paper prints RoBERTa-large's count",
    "commonsense-phi3": "a number for each output; the paper's share is that of one for each input",
    "commonsense-llama3": "a number for each output; the paper's share is that of one for each input",
}
"""Why VeRA's count is not the paper's."""

COLUMNS = (
    Column("suite", "suite"),
    Column("cells", "cells", count),
    Column("numbers in the paper", "compared", count),
    Column("within 3 %", "within", count),
    Column("the others", "others"),
    Column("trained, in millions", "trained"),
)


def row(name, folder):
    """A line of the table.

    Args:
        name: Of the suite.
        folder: Where configs of models are made.
    """
    suite = load_suite(SUITES / f"{name}.yaml")
    here = stand_in(suite.base["model"], folder)
    cells = cells_of(load_suite(SUITES / f"{name}.yaml", ["--base.model", str(here)]))
    compared, within, others, trained = 0, 0, [], {}
    for cell in cells:
        size, printed = size_of(cell), paper_trained(suite, cell.row)
        trained[cell.row] = "unknown" if size.trained is None else f"{size.trained / 1e6:.3g}"
        if printed is None or size.trained is None:
            continue
        compared += 1
        ratio, close = ratio_to_paper(printed, size.trained, size.model)
        within += close
        if not close:
            others.append(f"{cell.row} {ratio:.2f} times: {WHY[name]}")
    return {
        "suite": f"`{name}`",
        "cells": len(cells),
        "compared": compared or None,
        "within": within if compared else None,
        "others": "; ".join(dict.fromkeys(others)) or None,
        "trained": ", ".join(f"{method} {figure}" for method, figure in trained.items()),
    }


def table():
    """The table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(path.stem, Path(folder)) for path in sorted(SUITES.glob("*.yaml"))]
    return markdown_table(rows, COLUMNS) + "\n"


def written():
    """The page with the table in it."""
    return with_table(PAGE, BEGIN, END, table())


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
