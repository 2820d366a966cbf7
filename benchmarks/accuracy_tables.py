"""Write the tables of docs/accuracy.md anew from benchmarks/results: python benchmarks/accuracy_tables.py."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

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
LANGUAGE = {
    "e2e lora": "LoRA, r = 16",
    "e2e randlora": "RandLoRA `structured`, r = 12",
    "e2e hybrid": "`hybrid` of LoRA r = 8 and `structured` r = 24",
    "e2e full": "full fine-tuning",
}
TABLES: dict[str, tuple[str, Mapping[str, str], int]] = {
    "banking77": ("banking77.json", BANKING, 2),
    "cifar10": ("cifar10_rank.json", CIFAR, 1),
    "bases": ("cifar10_rank.json", BASES, 1),
    "e2e": ("language.json", LANGUAGE, 3),
}
"""Name of a table on the page -> file of its results, its rows, and digits of a score."""

STUDIES = {
    "screening": "study-screening.json",
    "final": "study-final.json",
    "cola": "study-screening-cola.json",
}
"""Name of a table on the page -> what `randlora study table --format json` wrote."""


def table(name: str) -> str:
    """One table in Markdown: trained numbers, score, what was forgotten where that was measured, and the rates."""
    file, rows, digits = TABLES[name]
    results = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    forgetting = any("runs" in results[key] for key in rows)
    heads = ["", "trained", "test", *(["general text"] if forgetting else []), "seeds", "rate", "validation by rate"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 2) + "---|"]
    for key, label in rows.items():
        found = results[key]
        cells = [label, f"{found['trainable_parameters']:,}", _mean(found["test"], digits)]
        if forgetting:
            cells.append(_mean(_general(found), 2))
        by_rate = sorted((float(rate), value) for rate, value in found["validation_by_learning_rate"].items())
        cells += [str(len(found["seeds"])), f"{found['best_learning_rate']:g}"]
        cells.append(", ".join(f"{rate:g} {value:.{digits}f}" for rate, value in by_rate))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def study_table(file: str) -> str:
    """The rows of a study, the best mean rank first, with each task's score, rate and scores on validation by rate."""
    study = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    cells = {(cell["row"], cell["column"]): cell for cell in study["cells"]}
    columns = list(dict.fromkeys(column for _, column in cells))
    heads = ["trained", "mean rank", *(head for column in columns for head in (column, "rate", "validation by rate"))]
    lines = ["| | " + " | ".join(heads) + " |", "|---|--:|--:|" + "--:|--:|---|" * len(columns)]
    for row, rank in sorted(study["ranks"].items(), key=lambda item: item[1]["rank"]):
        shown = [f"`{row}`", f"{cells[row, columns[0]]['trained']:,}", f"{rank['rank']:g}"]
        for cell in (cells[row, column] for column in columns):
            by_rate = sorted((float(rate), value) for rate, value in cell["validation"].items())
            shown += [f"{cell['mean']:.1f} ± {cell['sd']:.1f}", f"{cell['learning_rate']:g}"]
            shown.append(", ".join(f"{rate:g} {value:.1f}" for rate, value in by_rate))
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _mean(values: list[float], digits: int) -> str:
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def _general(found: dict[str, Any]) -> list[float]:
    """The loss on the general text after training, of the seeds at the best rate."""
    rate = found["best_learning_rate"]
    return [found["runs"][f"lr{rate:g}-seed{seed}"]["general_loss"] for seed in found["seeds"]]


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
