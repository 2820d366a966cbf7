"""Is RandLoRA nearer to full fine-tuning than LoRA? The question of the paper's Figure 4, on CIFAR-10, a small CLIP.

    python benchmarks/figure4.py --train train.parquet --test test.parquet

The runs are those of `benchmarks/cifar10_rank.py` (about as many trained numbers each, but for full fine-tuning) at the
rates that it found on validation, with three seeds. For each seed: CKA of the vision tower's attention and MLP blocks
with those of full fine-tuning with the same seed, on the images set apart for validation; how far the loss rises on the
straight way from each run to full fine-tuning's; and the rank that holds 90 % of the energy of ΔW on all layers. Runs
are kept in --runs and not repeated; the summary goes to benchmarks/results/figure4.json.
"""

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from accuracy import RESULTS, command_line
from cifar10_rank import base_config, config_of
from randlora.analysis.cka import analyze_cka
from randlora.analysis.landscape import analyze_landscape
from randlora.analysis.spectra import analyze_spectrum
from randlora.training import train

METHODS = ("lora", "structured", "uniform", "hybrid")
FULL = "full"
DEEP = 2
"""From this block of four on a layer counts as deep."""


def cka_with_full(runs: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Method -> mean CKA with full fine-tuning of the vision tower's shallow and deep blocks."""
    found = analyze_cka([runs[name] for name in METHODS], runs[FULL])
    rows = [row for row in found.rows if "vision_model" in row["layer"]]
    return {
        name: {
            depth: fmean(row[pair] for row in rows if _is_deep(row["layer"]) == (depth == "deep"))
            for depth in ("shallow", "deep")
        }
        for name, pair in zip(METHODS, found.data["pairs"], strict=True)
    }


def _is_deep(layer: str) -> bool:
    match = re.search(r"layers\.(\d+)", layer)
    return match is not None and int(match[1]) >= DEEP


def barriers_to_full(runs: dict[str, Path]) -> dict[str, float]:
    """Method -> how far the loss rises above the line between its run and full fine-tuning's."""
    found: dict[str, float] = {}
    for first, second in (METHODS[:2], METHODS[2:]):
        with tempfile.TemporaryDirectory() as folder:
            edges = analyze_landscape(
                [runs[first], runs[FULL], runs[second]], Path(folder), grid=2, margin=0.0, examples=512
            ).rows
        found[first], found[second] = edges[0]["barrier"], edges[1]["barrier"]
    return found


def main() -> None:
    """Run what is not run yet and write the summary."""
    arguments = command_line(__doc__, (*METHODS, FULL), "runs/figure4")
    rates = json.loads((RESULTS / "cifar10_rank.json").read_text(encoding="utf-8"))
    base = base_config(arguments.train, arguments.test)
    summary: dict[str, Any] = {"seeds": arguments.seeds, "by_seed": []}
    for seed in arguments.seeds:
        runs = {}
        for name in (*METHODS, FULL):
            runs[name] = arguments.runs / f"{name}-seed{seed}"
            optimization = replace(base.optimization, learning_rate=rates[name]["best_learning_rate"])
            config = replace(config_of(name, base), optimization=optimization, seed=seed, output=str(runs[name]))
            record = train(config, score_test=False)
            summary |= {"hardware": record.hardware, "versions": record.versions}
        spectra = {name: analyze_spectrum(runs[name]).data["rank_of_all"] for name in (*METHODS, FULL)}
        summary["by_seed"].append({"cka": cka_with_full(runs), "barrier": barriers_to_full(runs), "rank": spectra})
        print(seed, json.dumps(summary["by_seed"][-1]), flush=True)
        (RESULTS / "figure4.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
