"""What a study would run, before anything is run: trained numbers and memory of every cell, by the models' configs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from randlora.studies.cells import Cell
from randlora.studies.paper import CLOSE, paper_trained, ratio_to_paper
from randlora.studies.peak_memory import BETWEEN, PeakMemory
from randlora.studies.shapes import needs_stand_in, stand_in
from randlora.studies.sizes import size_of
from randlora.studies.study import Study
from randlora.studies.suite import Suite
from randlora.tasks.bars import progress_bar
from randlora.training.config import resolve

_SHOWN = 3
"""Kinds of batches that a line names."""


@dataclass(frozen=True)
class Plan:
    """What would be run.

    Attributes:
        rows: By cell "column", "row", "trained", "paper", "ratio", "memory", "rates" and "runs"; what is not known is
            None.
        notes: What is not known and why, what memory is predicted for, and how many cells train as many numbers as the
            paper's.
    """

    rows: list[dict[str, Any]]
    notes: list[str]


def plan_of(study: Study) -> Plan:
    """Plan a study. Nothing is downloaded, and neither weights nor data are read.

    Args:
        study: The study, which need not be begun.
    """
    absent = {cell.config.model for cell in study.cells if needs_stand_in(cell.config.model)}
    with TemporaryDirectory() as folder:
        folders = {model: str(stand_in(model, Path(folder))) for model in absent}
        plan = _plan(study.suite, [_with_model(cell, folders) for cell in study.cells])
    notes = [f"{model} is not on this machine: planned by its published shapes" for model in sorted(absent)]
    return Plan(plan.rows, notes + plan.notes)


def _with_model(cell: Cell, folders: Mapping[str, str]) -> Cell:
    model = cell.config.model
    return replace(cell, config=replace(cell.config, model=folders.get(model, model)))


def _plan(suite: Suite, cells: Sequence[Cell]) -> Plan:
    rows, why, assumed, within = [], dict[str, list[str]](), list[str](), list[bool]()
    peaks = PeakMemory([resolve(cell.config) for cell in cells])
    with progress_bar("plan", "cell", total=len(cells), leave=False) as bar:
        for cell in cells:
            size, printed = size_of(cell), paper_trained(suite, cell.row)
            ratio = None
            if printed is not None and size.trained is not None and size.model is not None:
                ratio, close = ratio_to_paper(printed, size.trained, size.model)
                within.append(close)
            memory = peaks.of(resolve(cell.config)) if size.model is not None or not size.why else None
            if memory is not None:
                assumed.append(memory.assumed)
            reasons = [f"trained numbers of {{}}: {size.why}"] if size.why else []
            if memory is not None and memory.peak_bytes is None:
                reasons.append(f"memory of {{}}: {assumed.pop()}")
            for reason in reasons:
                why.setdefault(reason, []).append(cell.row)
            rows.append(
                {
                    "column": cell.column,
                    "row": cell.row,
                    "trained": size.trained,
                    "paper": printed,
                    "ratio": ratio,
                    "memory": None if memory is None else memory.peak_bytes,
                    "rates": " ".join(f"{rate:g}" for rate in cell.rates),
                    "runs": len(cell.seeds) + (len(cell.rates) - 1) * cell.rate_seeds,
                }
            )
            bar.update()
    notes = [f"unknown: {reason.format(', '.join(dict.fromkeys(names)))}" for reason, names in why.items()]
    different = [batch for batch in dict.fromkeys(assumed) if batch != BETWEEN]
    more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    more += f"; {BETWEEN}" if BETWEEN in assumed else ""
    notes += [f"peak memory is predicted for {'; '.join(different[:_SHOWN])}{more}"] if assumed else []
    if within:
        compared = f"{sum(within)} of {len(within)} cells whose numbers the paper prints"
        notes.append(f"{compared} train as many within {CLOSE:.0%}, to the paper's rounding")
    return Plan(rows, notes)
