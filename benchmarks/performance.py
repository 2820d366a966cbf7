"""The results of the benchmarks as the tables of docs/performance.md, and plots.

python benchmarks/performance.py
"""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from contenders import LORA, NAMES
from randlora.update.dense import DENSE_RATES
from randlora.update.operators import Rates
from randlora.update.structured import STRUCTURED_RATES
from traffic_table import traffic_table

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
    for name in (name for name in NAMES if name in result["methods"]):
        row = result["methods"][name]
        time = row["milliseconds"]
        lines.append(
            f"| {name} | {row['trained']:,} | {time['median']:.0f} ({time['p10']:.0f} to {time['p90']:.0f}) "
            f"| {row['time_over_lora']:.2f} | {row['peak_bytes'] / MIB:.0f} | {row['saved_bytes'] / MIB:.0f} "
            f"| {row['adapter_bytes']:,} | {row['bases_bytes'] / MIB:.0f} | {row['gradient_error']:.4f} |"
        )
    return [*lines, ""]


def linears_table(result: dict) -> list[str]:
    """Every cell: times of each plan, and `auto` over the best plan of its family."""
    names = list(next(iter(result["cells"].values()))["milliseconds"])
    lines = [
        "### Single layers, forward and backward",
        "",
        conditions(result) + " Milliseconds. Plans are strategies of the forward and of the backward pass: F folded, "
        "f factored. In the last columns, `auto` over the best plan.",
        "",
        "| out x in, tokens | " + " | ".join(map(_short, names)) + " | auto, structured | auto, uniform |",
        "|---|" + "--:|" * (len(names) + 2),
    ]
    for cell, entry in result["cells"].items():
        medians = {name: times["median"] for name, times in entry["milliseconds"].items()}
        times = " | ".join(f"{medians[name]:.2f}" for name in names)
        lines.append(
            f"| {cell} | {times} | {auto_ratio(medians, 'structured'):.2f} | {auto_ratio(medians, 'uniform'):.2f} |"
        )
    return [*lines, ""]


def auto_ratio(medians: dict[str, float], family: str) -> float:
    """Time of `auto` over that of the best plan."""
    plans = [time for name, time in medians.items() if name.startswith(family) and "/" in name]
    return medians[f"{family}, auto"] / min(plans)


def _short(name: str) -> str:
    return name.replace("folded", "F").replace("factored", "f")


def rates_table() -> list[str]:
    """The rates of the cost model."""
    lines = [
        "### Rates of the cost model",
        "",
        "In multiply-adds of a large matrix product, fitted by `benchmarks/costs.py` to the cells in bfloat16.",
        "",
        "| family | " + " | ".join(Rates._fields) + " |",
        "|---|" + "--:|" * len(Rates._fields),
    ]
    rates_of = {"structured": STRUCTURED_RATES, "dense": DENSE_RATES}
    lines += [f"| {kind} | " + " | ".join(f"{rate:,.3g}" for rate in rates) + " |" for kind, rates in rates_of.items()]
    return [*lines, ""]


def inference_table(result: dict) -> list[str]:
    """Decoding, saving and loading."""
    lines = [
        "### Decoding one token, saving and loading",
        "",
        conditions(result),
        "",
        "| decoding | ms (p10 to p90) | over the base model |",
        "|---|--:|--:|",
    ]
    base = result["decode"]["base model"]["median"]
    for name, time in result["decode"].items():
        spread = f"{time['median']:.2f} ({time['p10']:.2f} to {time['p90']:.2f})"
        lines.append(f"| {name} | {spread} | {time['median'] / base:.2f} |")
    lines += ["", "| adapter file | bytes | save, ms | load, ms |", "|---|--:|--:|--:|"]
    for name, size in result["file_bytes"].items():
        save, load = (result["files"][f"{name}, {what}"]["median"] for what in ("save", "load"))
        lines.append(f"| {name} | {size:,} | {save:.0f} | {load:.0f} |")
    return [*lines, ""]


def scaling_table(result: dict) -> list[str]:
    """Times along each axis, and how far they are from a line."""
    lines = ["### Growth with tokens, layers and rows", "", conditions(result)]
    lines += ["Milliseconds of a step; *off line*: the largest relative distance from the fitted line.", ""]
    for axis, entry in result["axes"].items():
        lines += [f"| {axis} | " + " | ".join(map(str, entry["sizes"])) + " | off line |"]
        lines += ["|---|" + "--:|" * (len(entry["sizes"]) + 1)]
        for name, times in entry["milliseconds"].items():
            cells = " | ".join(f"{time:.0f}" for time in times)
            lines.append(f"| {name} | {cells} | {100 * entry['departure'][name]:.1f} % |")
        lines.append("")
    return lines


def plot_scaling(result: dict) -> None:
    """A panel per axis."""
    figure, panels = plt.subplots(1, len(result["axes"]), figsize=(12, 3.5))
    for axes, (axis, entry) in zip(panels, result["axes"].items(), strict=True):
        for name, times in entry["milliseconds"].items():
            axes.plot(entry["sizes"], times, marker="o", label=name)
        axes.set_xlabel(axis)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    panels[0].set_ylabel("ms per step")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT.with_name("scaling.png"), dpi=110)


def plot(steps: dict) -> None:
    """Time over LoRA's, workload by workload."""
    figure, axes = plt.subplots(figsize=(9, 4))
    shown = [name for name in NAMES if name != LORA]
    for position, name in enumerate(shown):
        measured = [(i, r["methods"][name]) for i, r in enumerate(steps.values()) if name in r["methods"]]
        ratios = [row["time_over_lora"] for _, row in measured]
        places = [index + (position - len(shown) / 2) * 0.09 for index, _ in measured]
        axes.bar(places, ratios, width=0.08, label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(steps)), list(steps))
    axes.set_ylabel("step time over PEFT's LoRA")
    axes.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    """Replace the tables of the page."""
    results = {
        name: json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("steps", "linears", "inference", "scaling", "traffic")
    }
    lines = [line for workload, result in results["steps"].items() for line in steps_table(workload, result)]
    lines += linears_table(results["linears"]) + rates_table()
    lines += inference_table(results["inference"]) + scaling_table(results["scaling"])
    lines += traffic_table(results["traffic"])
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(before + START + "\n\n" + "\n".join(lines) + "\n" + END + after, encoding="utf-8")
    plot(results["steps"])
    plot_scaling(results["scaling"])


if __name__ == "__main__":
    main()
