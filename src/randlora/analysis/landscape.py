"""`randlora analyze landscape`: the loss in the plane of three runs, and the barriers between them (Figures 4b, 5)."""

import hashlib
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from randlora.analysis.bars import bar
from randlora.analysis.corners import Corners, base_model, write_corner
from randlora.analysis.evaluating import Evaluator
from randlora.analysis.partial import PartialLosses
from randlora.analysis.plane import PAPER, Plane, Point, orthonormal
from randlora.analysis.runs import FinishedRun, choose_split, open_runs, require_same_base, require_same_data
from randlora.errors import ConfigError, OutputError
from randlora.files import digest
from randlora.locks import locked
from randlora.result import Result
from randlora.tasks import Split
from randlora.training.methods import load_model

EDGE_POINTS = 11
"""Points on an edge of the triangle, its ends among them, where its barrier is looked for."""
TOLERANCE = 1e-6
"""How far a corner's loss may be from the run's own, as a share of it, without a word about it."""


def analyze_landscape(
    runs: Sequence[str | Path],
    folder: Path,
    *,
    plane: Literal["paper", "orthonormal"] = "paper",
    grid: int = 11,
    margin: float = 0.5,
    split: Literal["test", "validation"] | None = None,
    examples: int | None = 512,
    trust_remote_code: bool = False,
) -> Result:
    """The loss over a grid in the plane of three runs, computed in float32.

    The base model is in memory once; the merged weights of the runs lie in temporary files meanwhile. What is computed
    is kept in `folder`, so that the same call goes on where another was stopped.

    Args:
        runs: Folders of three finished runs of one base.
        folder: Where results will be; see `output_folder`.
        plane: "paper" has the runs at (0, 0), (0.5, 1) and (1, 0), "orthonormal" at their true angles and distances.
        grid: Points on each axis.
        margin: Width of what is shown around the triangle.
        split: The data; None takes validation where all runs have one, else test.
        examples: How many of them, drawn by a fixed seed; None takes all.
        trust_remote_code: Whether Python code that comes with the model may run.

    Raises:
        CheckpointError: A run is not finished, or damaged.
        ConfigError: There are not three, they have other bases or data, or a number is out of range.
        LayerError: An adapter cannot be merged.
        OutputError: Another process is at a landscape in the folder, or it cannot be written.
    """
    if len(runs) != 3:
        raise ConfigError("runs", expected="three", got=str(len(runs)))
    if grid < 2:
        raise ConfigError("--grid", expected="2 or more", got=str(grid))
    if not 0 <= margin < math.inf:
        raise ConfigError("--margin", expected="0 or more", got=str(margin))
    if examples is not None and examples < 1:
        raise ConfigError("--examples", expected="1 or more", got=str(examples))
    opened = open_runs(runs, trust_remote_code=trust_remote_code)
    require_same_base(opened)
    chosen = choose_split(opened, split)
    require_same_data(opened, chosen)
    if opened[0].config.quantization is not None:
        raise ConfigError("runs", expected="runs of a base that is not quantized", got=opened[0].config.quantization)
    got, hint = "one in use", "wait for it, or choose another --output"
    busy = OutputError(str(folder), expected="a folder that no other landscape is using", got=got, hint=hint)
    with locked(folder, busy), tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        own = [_own_loss(run, chosen, examples, scratch, number) for number, run in enumerate(opened)]
        task = opened[0].task()
        load_model(task, opened[0].config)
        model = base_model(task)
        corners = Corners(model, [scratch / f"{number}.safetensors" for number in range(3)], scratch)
        spanned = PAPER if plane == "paper" else orthonormal(corners.products())
        evaluator = Evaluator(opened[0], task, model, chosen, examples, scratch)
        axes = spanned.axes(margin, grid)
        edges = _edges(spanned)
        points = [*(point for edge in edges for point in edge), *((x, y) for y in axes[1] for x in axes[0])]
        losses = PartialLosses(folder, _key(opened, spanned, chosen, evaluator.count))
        _measure(points, spanned, corners, evaluator, losses)
    return _result(opened, own, spanned, axes, edges, losses, chosen)


def _own_loss(run: FinishedRun, split: Split, examples: int | None, scratch: Path, number: int) -> float:
    """A run's loss with its adapter apart; its merged weights are written meanwhile, and the model let go."""
    task = run.task()
    model = run.model(task)
    loss = Evaluator(run, task, model, split, examples, scratch).loss()
    write_corner(task, model, scratch / f"{number}.safetensors")
    return loss


def _edges(plane: Plane) -> list[list[Point]]:
    """The points on the edges from run 1 to 2, 2 to 3 and 1 to 3."""
    found = []
    for start, end in ((0, 1), (1, 2), (0, 2)):
        (x0, y0), (x1, y1) = plane.corners[start], plane.corners[end]
        shares = [step / (EDGE_POINTS - 1) for step in range(1, EDGE_POINTS - 1)]
        between = [((1 - t) * x0 + t * x1, (1 - t) * y0 + t * y1) for t in shares]
        found.append([plane.corners[start], *between, plane.corners[end]])
    return found


def _measure(
    points: Sequence[Point], plane: Plane, corners: Corners, evaluator: Evaluator, losses: PartialLosses
) -> None:
    wanted = list(dict.fromkeys(points))
    done = sum(point in losses for point in wanted)
    with bar("landscape", "point", len(wanted), done) as progress, corners.borrowed():
        for point in wanted:
            if point not in losses:
                corners.set(plane.weights(*point))
                losses.add(point, evaluator.loss())
                progress.update()


def _key(runs: Sequence[FinishedRun], plane: Plane, split: Split, count: int) -> str:
    """What the losses depend on."""
    files = [sorted(path for path in run.folder.adapter.rglob("*.safetensors")) for run in runs]
    parts = [[digest(path) for path in found] for found in files]
    bases = [run.config.fingerprint for run in runs]
    return hashlib.sha256(json.dumps([parts, bases, plane.corners, split, count]).encode()).hexdigest()


def _result(
    runs: Sequence[FinishedRun],
    own: Sequence[float],
    plane: Plane,
    axes: tuple[list[float], list[float]],
    edges: Sequence[Sequence[Point]],
    losses: PartialLosses,
    split: Split,
) -> Result:
    names = [run.name for run in runs]
    at_corners = [losses[corner] for corner in plane.corners]
    barriers = [_barrier([losses[point] for point in edge]) for edge in edges]
    pairs = [f"{names[0]} – {names[1]}", f"{names[1]} – {names[2]}", f"{names[0]} – {names[2]}"]
    rows = [{"edge": pair, **barrier} for pair, barrier in zip(pairs, barriers, strict=True)]
    gaps = [abs(found - loss) / max(abs(loss), 1e-12) for found, loss in zip(at_corners, own, strict=True)]
    data = {
        "runs": names,
        "plane": plane.name,
        "split": split,
        "corners": plane.corners,
        "x": axes[0],
        "y": axes[1],
        "losses": [[_finite(losses[x, y]) for x in axes[0]] for y in axes[1]],
        "corner_losses": at_corners,
        "own_losses": list(own),
        "edges": [{**row, "losses": [_finite(losses[p]) for p in edge]} for row, edge in zip(rows, edges, strict=True)],
    }
    summary = [
        f"{name}: loss {loss:.6f} in its corner" + (f", {value:.6f} unmerged" if gap > TOLERANCE else "")
        for name, loss, value, gap in zip(names, at_corners, own, gaps, strict=True)
    ]
    highest = max(rows, key=lambda row: math.inf if row["barrier"] is None else row["barrier"])
    if highest["barrier"] is None:
        summary.append(f"between {highest['edge']} the loss is not finite")
    elif highest["barrier"] <= TOLERANCE * max(at_corners):
        summary.append("no barrier: on no edge does the loss rise above the line between its ends")
    else:
        summary.append(f"highest barrier {highest['barrier']:.4g}, between {highest['edge']}")
    return Result("landscape", f"Loss on the {split} data between {', '.join(names)}", summary, rows, data)


def _barrier(losses: Sequence[float]) -> dict[str, Any]:
    """How far the loss on an edge rises above the line between its ends."""
    last = len(losses) - 1
    line = [losses[0] + step / last * (losses[-1] - losses[0]) for step in range(last + 1)]
    heights = [found - level for found, level in zip(losses, line, strict=True)]
    place = max(range(last + 1), key=lambda step: heights[step] if math.isfinite(heights[step]) else math.inf)
    return {"barrier": _finite(heights[place]), "at": place / last, "highest loss": _finite(max(losses))}


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
