"""The counts of traffic.py as a table of docs/performance.md."""

from traffic import BASE, EVEN, LORA, LORA_BF16, METHODS

_SHOWN = {LORA_BF16: "LoRA, bf16", "structured": "structured", EVEN: "even blocks", "hybrid": "hybrid"}
_SHOWN |= {"uniform": "uniform", BASE: "base"}


def traffic_table(results: dict, rows: str = "1024") -> list[str]:
    """Launches, bytes and predicted time of both passes, bytes and time over LoRA's, for one number of rows.

    Args:
        results: What traffic.py stores.
        rows: Which T, as its key.
    """
    lines = [
        "### Launches and bytes on a GPU, reckoned",
        "",
        f"Both passes over {int(rows):,} rows: launches / bytes and predicted time over LoRA's. Not measured.",
        "",
        "| layer | LoRA, launches | " + " | ".join(_SHOWN[m] for m in METHODS if m != LORA) + " |",
        "|---|--:|" + "--:|" * (len(METHODS) - 1),
    ]
    for block, entry in results["blocks"].items():
        for name, layer in entry["layers"].items():
            for precision, by_rows in layer["cells"].items():
                cell = by_rows[rows]
                lora = cell[LORA]
                others = (_cell(cell[method], lora) for method in METHODS if method != LORA)
                label = f"{block}, {name} ({layer['out']} x {layer['in']}), {precision}"
                lines.append(f"| {label} | {_total(lora, 'launches')} | " + " | ".join(others) + " |")
    return [*lines, ""]


def _cell(passes: dict, lora: dict) -> str:
    moved, time = (_total(passes, what) / _total(lora, what) for what in ("bytes", "microseconds"))
    return f"{_total(passes, 'launches')} / {moved:.2f} / {time:.2f}"


def _total(passes: dict, what: str) -> float:
    return passes["forward"][what] + passes["backward"][what]
