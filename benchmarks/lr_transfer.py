"""Does the learning rate carry over? The best one for adapters of a small language model, by width and basis rank.

    python benchmarks/lr_transfer.py --pretrain banking77/train.csv --adapt boolq/train.json

For each width a two-layer Llama over bytes is trained on the first text, then RandLoRA adapters on all its linear
layers are trained on the second, at learning rates a factor of 2 apart: from the middle downhill until the best one has
a worse neighbour on both sides. Reported is the mean loss on held-out bytes of the second text. Finished cells are kept
in --output and not repeated.
"""

import argparse
import itertools
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import peft
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from randlora import RandLoraConfig

WIDTHS = (128, 256, 512, 1024)
BASE = (128, 8)
RANKS = (4, 16, 64)
FAMILIES = ("structured", "uniform")
RATES = tuple(7.5e-4 * 2**step for step in range(10))  # 7.5e-4 to 0.384
FIRST = 5  # 2.4e-2, where the walk to the minimum begins
LENGTH, BATCH = 64, 6  # bytes per row, rows per step
PRETRAIN_STEPS, ADAPT_STEPS, WARMUP = 600, 60, 6


def batches(text: Tensor, steps: int, seed: int) -> list[Tensor]:
    """Random windows of the text, (BATCH, LENGTH) each."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(text) - LENGTH, (steps, BATCH), generator=generator)
    return [torch.stack([text[s : s + LENGTH] for s in row]).long() for row in starts.tolist()]


def fit(model: torch.nn.Module, data: list[Tensor], rate: float) -> None:
    """AdamW with warm-up and linear decay, bf16."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (len(data) - step) / max(1, len(data) - WARMUP))
    )
    for rows in data:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


@torch.no_grad()
def held_out_loss(model: torch.nn.Module, data: list[Tensor]) -> float:
    """Mean loss per byte, in nats."""
    with torch.autocast("cpu", torch.bfloat16):
        return sum(model(input_ids=rows, labels=rows).loss.item() for rows in data) / len(data)


def pretrained(width: int, text: Tensor, folder: Path) -> LlamaForCausalLM:
    """The base model of this width, trained once and kept."""
    path = folder / f"base-{width}"
    if not path.is_dir():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=256,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=width // 64,
            num_key_value_heads=width // 64,
            max_position_embeddings=LENGTH,
        )
        model = LlamaForCausalLM(config)
        fit(model, batches(text, PRETRAIN_STEPS, seed=1), 2e-3 * math.sqrt(128 / width))
        model.save_pretrained(path)
    return LlamaForCausalLM.from_pretrained(path)


def loss_of(width: int, r: int, family: str, index: int, *, texts: tuple[Tensor, Tensor], folder: Path) -> float:
    """Held-out loss of one adaptation at the rate of this index."""
    rate = RATES[index]
    path = folder / f"{family}-{width}-{r}-{rate:g}.json"
    if path.is_file():
        return json.loads(path.read_text())["loss"]
    base = pretrained(width, texts[0], folder)
    model = peft.get_peft_model(base, RandLoraConfig(r=r, bases=family, target_modules="all-linear"))
    train, test = texts[1][:-20000], texts[1][-20000:]
    fit(model, batches(train, ADAPT_STEPS, seed=2), rate)
    loss = held_out_loss(model, batches(test, 24, seed=3))
    path.write_text(json.dumps({"loss": loss if math.isfinite(loss) else 99.0}))
    return loss


def walk(loss_at: Callable[[int], float]) -> dict[int, float]:
    """Losses by index of the rate: from the middle downhill, until the minimum has been passed on both sides."""
    losses = {FIRST: loss_at(FIRST)}
    for step in (1, -1):
        index = FIRST + step
        while 0 <= index < len(RATES):
            losses[index] = loss_at(index)
            if losses[index] > losses[index - step]:
                break
            index += step
    return losses


def optimum(losses: dict[int, float]) -> float:
    """The learning rate at the lowest point of a parabola through the best cell and its neighbours (in log rate)."""
    best = min(losses, key=lambda index: losses[index])
    if best - 1 not in losses or best + 1 not in losses:
        return RATES[best]
    left, middle, right = losses[best - 1], losses[best], losses[best + 1]
    shift = 0.5 * (left - right) / (left - 2 * middle + right)
    return RATES[best] * 2**shift


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrain", type=Path, required=True, help="text file")
    parser.add_argument("--adapt", type=Path, required=True, help="text file of another kind")
    parser.add_argument("--output", type=Path, default=Path("runs/lr-transfer"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    texts = tuple(
        torch.frombuffer(bytearray(path.read_bytes()[:1_000_000]), dtype=torch.uint8)
        for path in (arguments.pretrain, arguments.adapt)
    )
    cells = [BASE, *itertools.product(WIDTHS[1:], RANKS)]
    header = "".join(f"{rate:>9g}" for rate in RATES)
    print(f"{'family':<11}{'width':>6}{'r':>4}{header}{'best':>9}{'interpolated':>14}{'over base':>11}")
    for family in FAMILIES:
        for width, r in cells:
            losses = walk(partial(loss_of, width, r, family, texts=texts, folder=arguments.output))
            found = optimum(losses)
            if (width, r) == BASE:
                reference = found
            row = "".join(f"{losses[i]:9.3f}" if i in losses else f"{'·':>9}" for i in range(len(RATES)))
            grid_best = RATES[min(losses, key=lambda index: losses[index])]
            print(f"{family:<11}{width:>6}{r:>4}{row}{grid_best:9g}{found:14.2e}{found / reference:11.2f}", flush=True)


if __name__ == "__main__":
    main()
