"""Is RandLoRA nearer to full fine-tuning than LoRA? The question of the paper's Figure 4, on CIFAR-10, a small CLIP.

    python benchmarks/figure4.py runs/study/cifar10-rank

reads the runs of `suites/small/cifar10-rank.yaml`, a finished study: about as many trained numbers each, but for full
fine-tuning, each at the rate that was best on validation. For each seed: CKA of the vision tower's attention and MLP
blocks with those of full fine-tuning with the same seed, on the images set apart for validation; how far the loss rises
on the straight way from each run to full fine-tuning's; and the rank that holds 90 % of the energy of ΔW on all layers.
The summary goes to benchmarks/results/figure4.json.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from randlora.analysis.cka import analyze_cka
from randlora.analysis.landscape import analyze_landscape
from randlora.analysis.spectra import analyze_spectrum
from randlora.studies.schema import SUITE_FILE, load_suite
from randlora.studies.study import Study
from randlora.training.run import Record

SUMMARY = Path(__file__).parent / "results" / "figure4.json"
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


def runs_by_seed(folder: Path) -> dict[int, dict[str, Path]]:
    """Seed -> method -> its run of a finished study at the rate that was chosen."""
    study = Study(load_suite(folder / SUITE_FILE), folder)
    found: dict[int, dict[str, Path]] = {}
    for progress in study.progress():
        for unit, outcome in progress.units:
            if progress.cell.row in (*METHODS, FULL) and unit.scores_test:
                if outcome.record is None:
                    raise SystemExit(f"{folder}: {unit.words} is {outcome.state}: finish the study first")
                found.setdefault(unit.config.seed, {})[progress.cell.row] = study.run_folder(unit)
    return found


def main() -> None:
    """Write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of the study")
    by_seed = runs_by_seed(parser.parse_args().study)
    record = Record.load(by_seed[0][FULL])
    summary: dict[str, Any] = {"hardware": record.hardware, "versions": record.versions}
    summary |= {"seeds": list(by_seed), "by_seed": []}
    for seed, runs in by_seed.items():
        spectra = {name: analyze_spectrum(runs[name]).data["rank_of_all"] for name in (*METHODS, FULL)}
        summary["by_seed"].append({"cka": cka_with_full(runs), "barrier": barriers_to_full(runs), "rank": spectra})
        print(seed, json.dumps(summary["by_seed"][-1]), flush=True)
        SUMMARY.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
