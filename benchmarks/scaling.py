"""Step time against tokens, layers and rows: is it linear?

    python benchmarks/scaling.py                  # results in benchmarks/results/scaling.json

Whole steps of the Llama-shaped model of workloads.py. For each method and axis a line is fitted; reported is the
largest distance of a measured time from it, relative.
"""

import copy
import json
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from contenders import LORA, lora_rank, make
from measure import interleaved, steady_heap
from randlora.training.run.record import hardware, versions
from steps import step_of
from workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results" / "scaling.json"
METHODS = (LORA, "structured", "uniform")
REPETITIONS = 5
# (layers, rows, tokens of a row)
AXES = {
    "rows of 256 tokens, 4 layers": [(4, rows, 256) for rows in (1, 2, 4, 8)],
    "layers, 2 rows of 256 tokens": [(layers, 2, 256) for layers in (1, 2, 4, 8)],
    "tokens of a row, 4 rows, 4 layers": [(4, 4, tokens) for tokens in (64, 128, 256, 512)],
}


def times(layers: int, rows: int, tokens: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step by method."""
    torch.manual_seed(0)
    workload = WORKLOADS["llama-256"]
    config = workload.model().config
    config.num_hidden_layers, config.max_position_embeddings = layers, 512
    base = LlamaForCausalLM(config).bfloat16()
    rank = lora_rank(copy.deepcopy(base), workload.r, workload.targets)
    ids = torch.randint(3, 1024, (rows, tokens))
    batch = {"input_ids": ids, "labels": ids}
    steps = {
        name: step_of(make(name, copy.deepcopy(base), workload.r, rank, workload.targets), batch) for name in METHODS
    }
    return interleaved(steps, REPETITIONS)


def departure(sizes: list[int], milliseconds: list[float]) -> float:
    """Largest relative distance from the fitted line."""
    matrix = torch.tensor([[1.0, size] for size in sizes], dtype=torch.float64)
    measured = torch.tensor(milliseconds, dtype=torch.float64)
    line = matrix @ torch.linalg.lstsq(matrix, measured[:, None]).solution[:, 0]
    return ((line - measured).abs() / measured).max().item()


def main() -> None:
    """Measure, and write the results."""
    steady_heap()
    axes = {}
    for axis, points in AXES.items():
        varied = next(i for i in range(3) if len({point[i] for point in points}) > 1)
        sizes = [point[varied] for point in points]
        measured = [times(*point) for point in points]
        medians = {name: [point[name]["median"] for point in measured] for name in METHODS}
        axes[axis] = {
            "sizes": sizes,
            "milliseconds": medians,
            "departure": {name: departure(sizes, medians[name]) for name in METHODS},
        }
        print(axis, sizes, {n: [round(t) for t in times] for n, times in medians.items()}, axes[axis]["departure"])
        content = {
            "hardware": hardware(torch.device("cpu"), "bf16") | {"threads": torch.get_num_threads()},
            "versions": versions(),
            "repetitions": REPETITIONS,
            "axes": axes,
        }
        RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
