"""Write the tables of docs/accuracy.md anew from benchmarks/results: python benchmarks/accuracy_tables.py."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "accuracy.md"

STUDIES = {
    "banking77": "study-banking77.json",
    "screening": "study-screening.json",
    "final": "study-final.json",
    "cola": "study-screening-cola.json",
    "cifar10": "study-cifar10-rank.json",
    "bases": "study-cifar10-bases.json",
    "e2e": "study-language-e2e.json",
    "e2e-tolerance": "study-language-e2e-tolerance.json",
    "commonsense": "study-language-commonsense.json",
}
"""Name of a table on the page -> what `randlora study table --format json` wrote."""


def table(file: str) -> str:
    """The rows of a study, the best mean rank first, with each task's score, what was forgotten, and the rates."""
    study = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    cells = {(cell["row"], cell["column"]): cell for cell in study["cells"]}
    columns = list(dict.fromkeys(column for _, column in cells))
    ranked = ["mean rank"] if len(columns) > 1 else []
    forgotten = ["forgotten"] if any(cell["forgotten"] is not None for cell in study["cells"]) else []
    heads = [head for column in columns for head in (column, *forgotten, "rate", "validation by rate")]
    lines = ["| | " + " | ".join(["trained", *ranked, *heads]) + " |"]
    lines.append("|---|" + "--:|" * (1 + len(ranked)) + ("--:|" * (2 + len(forgotten)) + "---|") * len(columns))
    for row, rank in sorted(study["ranks"].items(), key=lambda item: item[1]["rank"]):
        shown = [f"`{row}`", f"{cells[row, columns[0]]['trained']:,}"]
        shown += [f"{rank['rank']:g}"] if ranked else []
        for cell in (cells[row, column] for column in columns):
            digits = 1 if cell["unit"] else 3
            spread = "" if cell["sd"] is None else f" ± {cell['sd']:.{digits}f}"
            shown.append(f"{cell['mean']:.{digits}f}{spread}")
            shown += [f"{cell['forgotten']:+.2f}"] if forgotten else []
            shown += [f"{cell['learning_rate']:g}", _by_rate(cell["validation"], digits)]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _by_rate(scores: Mapping[str, float | None], digits: int) -> str:
    by_rate = sorted((float(rate), value) for rate, value in scores.items())
    return ", ".join(f"{rate:g} {'diverged' if value is None else f'{value:.{digits}f}'}" for rate, value in by_rate)


def main() -> None:
    """Put each table between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    for name, file in STUDIES.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(page):
            raise SystemExit(f"{PAGE}: no marks for {name}")
        text = table(file)
        page = mark.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
