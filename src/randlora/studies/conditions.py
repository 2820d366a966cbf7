"""What the figures of a study hold for, in numbers and in words."""

from collections.abc import Sequence
from typing import Any

from randlora.studies.progress import Progress
from randlora.studies.study import Study
from randlora.studies.suite import Score
from randlora.training.config import OptimizationConfig


def conditions(study: Study, found: Sequence[Progress]) -> dict[str, Any]:
    """What the figures hold for, ours and the paper's.

    Args:
        study: The study.
        found: How far its cells are.
    """
    config = found[0].cell.config
    return {
        "ours": {
            "models": sorted({entry.cell.config.model for entry in found}),
            "seeds": list(study.suite.seeds),
            "rates": sorted({len(entry.cell.rates) for entry in found}),
            "batch_size": config.optimization.batch_size,
            "lengths": sorted({_length(entry.cell.config.optimization) for entry in found}, key=_count),
        },
        "paper": [
            {"table": paper.table, "backbone": paper.backbone, "conditions": paper.conditions}
            for paper in study.suite.paper
        ],
    }


def _asked(score: Score | None) -> str:
    """What the figures are of."""
    if score is None:
        return "test split"
    few = f"the first {score.limit} of each task, " if score.limit else ""
    name = "E2E's references" if score.e2e else f"answers in words, protocol {score.protocol}"
    return f"{few}{name}, batches of {score.batch_size}"


def _length(optimization: OptimizationConfig) -> str:
    """How long a run trains, in words."""
    steps = optimization.max_steps > 0
    count, unit = (optimization.max_steps, "step") if steps else (optimization.epochs, "epoch")
    return f"{count:g} {unit if count == 1 else f'{unit}s'}"


def _count(length: str) -> float:
    return float(length.partition(" ")[0])


def _a_few(lengths: Sequence[str]) -> str:
    """A few lengths, each; of many, of one unit, the shortest and the longest."""
    units = {length.partition(" ")[2].removesuffix("s") for length in lengths}
    if len(lengths) <= 3 or len(units) > 1:
        return " or ".join(lengths)
    return f"{lengths[0].partition(' ')[0]} to {lengths[-1]}"


def in_words(study: Study, cells: Sequence[dict[str, Any]], known: dict[str, Any]) -> list[str]:
    """The lines under a table.

    Args:
        study: The study.
        cells: Of the table.
        known: See `conditions`.
    """
    ours = known["ours"]
    seeds = len(study.suite.seeds)
    (rates,) = ours["rates"]
    tolerance = study.suite.tolerance
    by = f", by the mean of {study.suite.rate_seeds} seeds" if study.suite.rate_seeds > 1 else ""
    within = f", the lowest within {100 * tolerance:g} % of the best score" if tolerance else ""
    chosen = (
        f"learning rate chosen on the validation split from {rates} and more where the best was at an edge{by}{within}"
        if rates > 1
        else "one learning rate"
    )
    runs = f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
    lines = [
        f"ours: {', '.join(ours['models'])}; {_a_few(ours['lengths'])}; {chosen}; "
        f"{_asked(study.suite.score)}, {study.suite.statistic} ± standard deviation over {runs}"
    ]
    for paper in known["paper"]:
        what = f"; {paper['conditions']}" if paper["conditions"] else ""
        lines.append(f"the paper's: Table {paper['table']}, {paper['backbone']}{what}")
    for state in ("missing", "running", "failed", "diverged"):
        count = sum(cell["state"] == state for cell in cells)
        if count:
            lines.append(f"{count} of {len(cells)} cells {state}")
    return lines
