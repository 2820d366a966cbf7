"""Write the tables of docs/accuracy.md anew from benchmarks/results: python benchmarks/accuracy_tables.py."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev

from accuracy import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "accuracy.md"

BANKING = {
    "lora": "LoRA, r = 8",
    "randlora-structured": "RandLoRA `structured`, r = 16",
    "randlora-uniform": "RandLoRA `uniform`, r = 16",
    "hybrid": "`hybrid` of LoRA r = 4 and `uniform` r = 32",
    "full": "full fine-tuning",
}
CIFAR = {
    "randlora-a": "`randlora_a`, the control of rank 4",
    "lora": "LoRA, r = 11",
    "randlora-b": "`randlora_b`, rank 64",
    "uniform": "RandLoRA `uniform`, r = 4",
    "structured": "RandLoRA `structured`, r = 4",
    "spectral": "`spectral`, bases from W₀, r = 4",
    "hybrid": "`hybrid` of LoRA r = 5 and `uniform` r = 8",
    "hira": "HiRA, r = 11",
    "full": "full fine-tuning",
}
BASES = {
    "uniform": "`uniform`",
    "normal": "`normal`",
    **{f"ternary s={s}": f"`ternary`, s = {'√d' if s == 'sqrt' else s}" for s in ("2", "6", "sqrt", "100", "200")},
    "structured": "`structured`",
}
TABLES: dict[str, tuple[str, Mapping[str, str], int]] = {
    "banking77": ("banking77.json", BANKING, 2),
    "cifar10": ("cifar10_rank.json", CIFAR, 1),
    "bases": ("cifar10_rank.json", BASES, 1),
}
"""Name of a table on the page -> file of its results, its rows, and digits of a score."""

STUDIES = {
    "screening": "study-screening.json",
    "final": "study-final.json",
    "cola": "study-screening-cola.json",
    "e2e": "study-language-e2e.json",
    "e2e-tolerance": "study-language-e2e-tolerance.json",
    "commonsense": "study-language-commonsense.json",
}
"""Name of a table on the page -> what `randlora study table --format json` wrote."""


def table(name: str) -> str:
    """One table in Markdown: trained numbers, score, and the rates."""
    file, rows, digits = TABLES[name]
    results = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    heads = ["", "trained", "test", "seeds", "rate", "validation by rate"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 2) + "---|"]
    for key, label in rows.items():
        found = results[key]
        mean, spread = fmean(found["test"]), stdev(found["test"])
        cells = [label, f"{found['trainable_parameters']:,}", f"{mean:.{digits}f} ± {spread:.{digits}f}"]
        cells += [str(len(found["seeds"])), f"{found['best_learning_rate']:g}"]
        cells.append(_by_rate(found["validation_by_learning_rate"], digits))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def study_table(file: str) -> str:
    """The rows of a study, the best mean rank first, with each task's score, what was forgotten, and the rates."""
    study = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    cells = {(cell["row"], cell["column"]): cell for cell in study["cells"]}
    columns = list(dict.fromkeys(column for _, column in cells))
    forgotten = ["forgotten"] if any(cell["forgotten"] is not None for cell in study["cells"]) else []
    heads = [head for column in columns for head in (column, *forgotten, "rate", "validation by rate")]
    lines = ["| | " + " | ".join(["trained", "mean rank", *heads]) + " |"]
    lines.append("|---|--:|--:|" + ("--:|" * (2 + len(forgotten)) + "---|") * len(columns))
    for row, rank in sorted(study["ranks"].items(), key=lambda item: item[1]["rank"]):
        shown = [f"`{row}`", f"{cells[row, columns[0]]['trained']:,}", f"{rank['rank']:g}"]
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
    for name in (*TABLES, *STUDIES):
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(page):
            raise SystemExit(f"{PAGE}: no marks for {name}")
        text = study_table(STUDIES[name]) if name in STUDIES else table(name)
        page = mark.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
