"""`randlora analyze cka`: how alike the features of two models are, block by block (the paper's Figure 4a)."""

import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from randlora.analysis.bars import bar
from randlora.analysis.evaluating import Evaluator
from randlora.analysis.features import GramCollector
from randlora.analysis.hsic import SMALLEST, minibatch_cka
from randlora.analysis.runs import FinishedRun, choose_split, open_runs, require_same_base, require_same_data
from randlora.errors import ConfigError
from randlora.result import Result
from randlora.tasks import Split


def analyze_cka(
    runs: Sequence[str | Path],
    against: str | Path | None = None,
    *,
    split: Literal["test", "validation"] | None = None,
    examples: int = 1024,
    batch_size: int = 64,
    trust_remote_code: bool = False,
) -> Result:
    """CKA of runs of one base, on the same data, by attention and MLP block.

    One model is in memory at a time; of its features the Gram matrices of the batches are kept, blocks · examples ·
    batch_size numbers.

    Args:
        runs: Folders of finished runs, compared with each other.
        against: Folder of a run that each of them is compared with instead, such as a full fine-tuning.
        split: The data; None takes validation where all runs have one, else test.
        examples: How many of them, drawn by a fixed seed.
        batch_size: Examples whose features are compared with each other.
        trust_remote_code: Whether Python code that comes with the model may run.

    Raises:
        CheckpointError: A run is not finished, or damaged.
        ConfigError: There are too few runs, or they have other bases or data.
        LayerError: The model has no attention or MLP blocks.
    """
    if len(runs) < (2 if against is None else 1):
        raise ConfigError("runs", expected="two or more, or --against", got=f"{len(runs)}")
    for name, value in (("--examples", examples), ("--batch-size", batch_size)):
        if value < SMALLEST:
            raise ConfigError(name, expected=f"{SMALLEST} or more", got=str(value))
    opened = open_runs([*runs, *([] if against is None else [against])], trust_remote_code=trust_remote_code)
    require_same_base(opened)
    chosen = choose_split(opened, split)
    require_same_data(opened, chosen)
    if opened[0].config.task == "preference":
        raise ConfigError("task", expected="one whose examples the model sees once", got="preference")
    collected = [_collect(run, chosen, examples, batch_size) for run in opened]
    last = len(opened) - 1
    pairs = [(i, last) for i in range(last)] if against is not None else list(combinations(range(len(opened)), 2))
    names = {(i, j): f"{opened[i].name} ~ {opened[j].name}" for i, j in pairs}
    rows, errors = [], []
    for block, kind in collected[0].kinds.items():
        grams = [each.grams[block] for each in collected]
        if grams[0]:
            found = {name: minibatch_cka(grams[i], grams[j]) for (i, j), name in names.items()}
            rows.append({"layer": block, "block": kind, **{name: value for name, (value, _) in found.items()}})
            errors.append({name: error for name, (_, error) in found.items()})
    title = f"CKA on the {chosen} data"
    data = {"layers": rows, "standard_errors": errors, "pairs": list(names.values()), "split": chosen}
    return Result("cka", title, _in_words(rows, list(names.values())), rows, data)


def _collect(run: FinishedRun, split: Split, examples: int, batch_size: int) -> GramCollector:
    task = run.task()
    model = run.model(task)
    with tempfile.TemporaryDirectory() as scratch:
        evaluator = Evaluator(run, task, model, split, examples, Path(scratch))
        if evaluator.count < SMALLEST:
            raise ConfigError(f"data.{split}", expected=f"{SMALLEST} examples or more", got=str(evaluator.count))
        collector = GramCollector(model, batch_size)
        batches = evaluator.batches(batch_size)
        with bar(f"features of {run.name}", "batch", len(batches)) as progress:
            for batch in batches:
                with collector.listening(batch):
                    evaluator.forward(batch)
                progress.update()
    return collector


def _in_words(rows: Sequence[dict[str, Any]], pairs: Sequence[str]) -> list[str]:
    lines = []
    for pair in pairs:
        known = [row for row in rows if row[pair] is not None]
        means = {
            kind: fmean(row[pair] for row in known if row["block"] == kind)
            for kind in dict.fromkeys(row["block"] for row in known)
        }
        if known:
            least = min(known, key=lambda row: row[pair])
            words = ", ".join(f"{kind} {mean:.4f}" for kind, mean in means.items())
            lines.append(f"{pair}: mean CKA {words}; least alike at {least['layer']}, {least[pair]:.4f}")
    return lines
