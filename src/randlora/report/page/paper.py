"""The paper's figures (arXiv 2502.00987v2) for a task that a run has trained on: same model, same data, same share.

What can be matched: Tables 4 (GLUE), 5 (4 and 16 shots) and 11 (all training data), and the VRAM of Figures 2 and 3.
"""

import re
from dataclasses import dataclass
from functools import cache

from randlora.studies.paper import figures
from randlora.training.config.sections import TrainConfig

_BACKBONES = {
    r"clip-?vit-?(base-patch32|b-?32)(?!\d)": "CLIP-ViT-B/32",
    r"^roberta-?base$": "RoBERTa-base",
    r"^roberta-?large$": "RoBERTa-large",
}
"""Pattern of a model's name -> what the paper calls it."""


_TABLES = {"4", "5", "11", "Fig2-3"}


@dataclass(frozen=True)
class PaperPoint:
    """One figure of the paper's.

    Attributes:
        method: As the paper calls it.
        value: The goal, in percent.
        numbers: Trained numbers; None where the paper has none.
        memory: Peak memory in bytes, of the paper's GPU; None likewise.
        source: Which table.
    """

    method: str
    value: float
    numbers: float | None
    memory: float | None
    source: str


def paper_points(config: TrainConfig, unit: str) -> list[PaperPoint]:
    """The paper's figures for a run's task; none where it has not done the same.

    Args:
        config: The run's config.
        unit: Of the metric that the task is judged by; the paper's are in percent.
    """
    backbone = _backbone(config.model)
    setting = _setting(config)
    if backbone is None or setting is None or unit != "%":
        return []
    wanted = _words(config.data.suite or str(config.data.train))
    rows = [row for row in _rows() if row["backbone"] == backbone and row["setting"] == setting]
    of_task = [row for row in rows if row["column"] != "params" and _plain(row["column"]) in wanted]
    of_method = {(row["method"], row["column"]): row["value"] for row in _rows() if row["backbone"] == backbone}
    return [
        PaperPoint(
            row["method"],
            float(row["value"]),
            _count(of_method.get((row["method"], "params"))),
            _bytes(of_method, row["method"]),
            f"Table {row['table']}",
        )
        for row in of_task
    ]


def _backbone(model: str) -> str | None:
    name = model.rstrip("/").rpartition("/")[2].lower()
    return next((backbone for pattern, backbone in _BACKBONES.items() if re.search(pattern, name)), None)


def _setting(config: TrainConfig) -> str | None:
    """How much of the data was trained on, as the paper says it; None where it has no such setting."""
    if config.task == "text-classification":
        whole = getattr(config.data, "shots", None) is None and getattr(config.data, "fraction", None) in {None, 1.0}
        return "full" if whole else None
    if config.task != "image-text" or getattr(config.data, "encoders", "both") != "both":
        return None
    shots, fraction = getattr(config.data, "shots", None), getattr(config.data, "fraction", None)
    if shots is not None:
        return f"{shots}-shot"
    return "100%" if fraction in {None, 1.0} else None


def _words(source: str) -> set[str]:
    """What a data set may be called: the parts of its name or path, without punctuation."""
    return {_plain(part) for part in re.split(r"[/\\:.]", source)} | {_plain(source)}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _count(text: str | None) -> float | None:
    return None if text is None else 1e6 * float(text.rstrip("M"))


def _bytes(values: dict[tuple[str, str], str], method: str) -> float | None:
    """The VRAM of Figures 2 and 3, which name a method without its rank."""
    found = values.get((method, "GB")) or values.get((method.partition("-")[0], "GB"))
    return None if found is None else 1e9 * float(found)


@cache
def _rows() -> list[dict[str, str]]:
    """The figures of these tables, without averages over data sets."""
    names = ("table", "backbone", "setting", "method", "column")
    rows = [{**dict(zip(names, key, strict=True)), "value": value} for key, value in figures().items()]
    return [row for row in rows if row["table"] in _TABLES and row["column"] != "Average"]
