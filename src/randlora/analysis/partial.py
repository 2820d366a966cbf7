"""Losses of grid points that outlive an interruption."""

import json
import math
from pathlib import Path

from randlora.analysis.folder import PARTIAL
from randlora.analysis.plane import Point
from randlora.files import write_atomically, writing
from randlora.messages import note


class PartialLosses:
    """Losses by point, in a file that is written after each.

    Args:
        folder: Where the file is; the folder is made at the first point.
        key: What the losses depend on; those of a file with another key are passed over.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path, self._key = folder / PARTIAL, key
        self._losses: dict[Point, float] = {}
        if self._path.is_file():
            self._losses = self._read()

    def _read(self) -> dict[Point, float]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["key"] == self._key:
                return {(x, y): math.inf if loss is None else float(loss) for x, y, loss in content["losses"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        note(f"{self._path} is of another landscape and passed over")
        return {}

    def __contains__(self, point: Point) -> bool:
        return point in self._losses

    def __getitem__(self, point: Point) -> float:
        return self._losses[point]

    def add(self, point: Point, loss: float) -> None:
        """Note a loss; one that is no number counts as infinite."""
        self._losses[point] = loss if math.isfinite(loss) else math.inf
        lines = [[x, y, value if math.isfinite(value) else None] for (x, y), value in self._losses.items()]
        with writing(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps({"key": self._key, "losses": lines}))
