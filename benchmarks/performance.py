"""The results of steps.py and linears.py as the tables of docs/performance.md, and a plot.

python benchmarks/performance.py
"""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from contenders import LORA, NAMES

ROOT = Path(__file__).parent
PAGE = ROOT.parent / "docs" / "performance.md"
PLOT = PAGE.with_name("performance.png")
START, END = "<!-- tables: python benchmarks/performance.py -->", "<!-- end of tables -->"
MIB = 2**20


def conditions(result: dict) -> str:
    """Hardware, versions and number of repetitions, in a sentence."""
    hardware, versions = result["hardware"], result["versions"]
    return (
        f"{hardware['device']}, {hardware['threads']} threads, {hardware['precision']}; torch {versions['torch']}, "
        f"transformers {versions['transformers']}, PEFT {versions['peft']}; {result['repetitions']} repetitions."
    )


def steps_table(workload: str, result: dict) -> list[str]:
    """One workload, a row per method."""
    lines = [
        f"### {workload}",
        "",
        conditions(result),
        "",
        "| | trained | step, ms (p10 to p90) | over LoRA | peak, MiB | saved, MiB | adapter, bytes | bases, MiB "
        "| gradient error |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in NAMES:
        row = result["methods"][name]
        time = row["milliseconds"]
        lines.append(
            f"| {name} | {row['trained']:,} | {time['median']:.0f} ({time['p10']:.0f} to {time['p90']:.0f}) "
            f"| {row['time_over_lora']:.2f} | {row['peak_bytes'] / MIB:.0f} | {row['saved_bytes'] / MIB:.0f} "
            f"| {row['adapter_bytes']:,} | {row['bases_bytes'] / MIB:.0f} | {row['gradient_error']:.4f} |"
        )
    return [*lines, ""]


def linears_table(result: dict) -> list[str]:
    """Every cell: times over LoRA's, and `auto` over the best strategy of its family."""
    columns = [name for name in next(iter(result["cells"].values()))["milliseconds"] if "auto" not in name]
    lines = [
        "### Single layers, forward and backward",
        "",
        conditions(result) + " Milliseconds; in the last columns, `auto` over the better of the two strategies.",
        "",
        "| out x in, tokens | " + " | ".join(columns) + " | auto, structured | auto, uniform |",
        "|---|" + "--:|" * (len(columns) + 2),
    ]
    for cell, entry in result["cells"].items():
        medians = {name: times["median"] for name, times in entry["milliseconds"].items()}
        auto = [
            medians[f"{family}, auto"] / min(medians[f"{family}, {s}"] for s in ("factored", "folded"))
            for family in ("structured", "uniform")
        ]
        times = " | ".join(f"{medians[name]:.2f}" for name in columns)
        lines.append(f"| {cell} | {times} | {auto[0]:.2f} | {auto[1]:.2f} |")
    return [*lines, ""]


def plot(steps: dict) -> None:
    """Time over LoRA's, workload by workload."""
    figure, axes = plt.subplots(figsize=(9, 4))
    shown = [name for name in NAMES if name != LORA]
    for position, name in enumerate(shown):
        ratios = [steps[workload]["methods"][name]["time_over_lora"] for workload in steps]
        places = [index + (position - len(shown) / 2) * 0.09 for index in range(len(steps))]
        axes.bar(places, ratios, width=0.08, label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(steps)), list(steps))
    axes.set_ylabel("step time over PEFT's LoRA")
    axes.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    """Replace the tables of the page."""
    steps = json.loads((ROOT / "results" / "steps.json").read_text(encoding="utf-8"))
    linears = json.loads((ROOT / "results" / "linears.json").read_text(encoding="utf-8"))
    lines = [line for workload, result in steps.items() for line in steps_table(workload, result)]
    lines += linears_table(linears)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(before + START + "\n\n" + "\n".join(lines) + "\n" + END + after, encoding="utf-8")
    plot(steps)


if __name__ == "__main__":
    main()
