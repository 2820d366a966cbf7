"""What a study would run, before anything is run: trained numbers and memory of every cell, by the models' configs."""

import json
from dataclasses import dataclass
from typing import Any

from randlora.studies.cells import Cell
from randlora.studies.paper import CLOSE, paper_trained, ratio_to_paper
from randlora.studies.sizes import size_of
from randlora.studies.study import Study
from randlora.tasks.bars import progress_bar
from randlora.training.config import resolve
from randlora.training.prediction import Prediction, predict_from_config
from randlora.training.run.folder import as_dict

_WITHOUT_EFFECT = {
    "": ("seed", "output", "fingerprint"),
    "data": (
        "train",
        "validation",
        "test",
        "subset",
        "shots",
        "fraction",
        "label_column",
        "text_column",
        "image_column",
    ),
    "optimization": ("learning_rate", "head_learning_rate", "epochs", "max_steps", "weight_decay", "scheduler"),
}
"""Keys of a run's config that do not change the memory of a step whose data are not read."""

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
    rows, why, assumed, within = [], dict[str, list[str]](), list[str](), list[bool]()
    known = dict[str, Prediction]()
    with progress_bar("plan", "cell", total=len(study.cells), leave=False) as bar:
        for cell in study.cells:
            size, printed = size_of(cell), paper_trained(study.suite, cell.row)
            ratio = None
            if printed is not None and size.trained is not None and size.model is not None:
                ratio, close = ratio_to_paper(printed, size.trained, size.model)
                within.append(close)
            memory = _memory(cell, known) if size.model is not None or not size.why else None
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
                    "runs": len(cell.seeds) + (len(cell.rates) - 1 if len(cell.rates) > 1 else 0),
                }
            )
            bar.update()
    notes = [f"unknown: {reason.format(', '.join(dict.fromkeys(names)))}" for reason, names in why.items()]
    different = list(dict.fromkeys(assumed))
    more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    notes += [f"peak memory is predicted for {'; '.join(different[:_SHOWN])}{more}"] if assumed else []
    if within:
        cells = f"{sum(within)} of {len(within)} cells whose numbers the paper prints"
        notes.append(f"{cells} train as many within {CLOSE:.0%}, to the paper's rounding")
    return Plan(rows, notes)


def _memory(cell: Cell, known: dict[str, Prediction]) -> Prediction:
    """The prediction for a cell; cells whose steps are alike share it."""
    config = resolve(cell.config)
    content = as_dict(config)
    for section, keys in _WITHOUT_EFFECT.items():
        for key in keys:
            (content[section] if section else content).pop(key, None)
    text = json.dumps(content, sort_keys=True)
    if text not in known:
        known[text] = predict_from_config(config)
    return known[text]
