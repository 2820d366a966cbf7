"""The examples of `suites/small/language-*.yaml`: 480 to learn, 120 to choose by, 160 to score, of each of two tasks.

    python benchmarks/language_data.py --e2e FOLDER --commonsense FOLDER

takes the E2E challenge's `dev.csv` and `test.csv` (columns `mr` and `ref`) and LLM-Adapters' commonsense questions
(`TASK/train.json` and `TASK/test.json`), and writes JSON files of each split to runs/language/data.
"""

import argparse
import csv
import json
import random
from pathlib import Path

COMMONSENSE = ("ARC-Easy", "ARC-Challenge", "openbookqa", "boolq")
EXAMPLES = {"train": 480, "validation": 120, "test": 160}


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


def main() -> None:
    """Write the files of the tasks whose folder is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--e2e", type=Path, help="folder of the E2E challenge")
    parser.add_argument("--commonsense", type=Path, help="folder of the commonsense questions")
    parser.add_argument("--output", type=Path, default=Path("runs/language/data"), help="folder of the files")
    arguments = parser.parse_args()
    for task, examples in TASKS.items():
        folder = getattr(arguments, task)
        if folder is not None:
            (arguments.output / task).mkdir(parents=True, exist_ok=True)
            for split in EXAMPLES:
                text = json.dumps(examples(folder, split))
                (arguments.output / task / f"{split}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
