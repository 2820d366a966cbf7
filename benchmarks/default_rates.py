"""How far each method lies behind its own best learning rate at 1e-3 and at 3e-3: python benchmarks/default_rates.py.

From every curve of scores on validation data in benchmarks/results whose goal is in points; see docs/log.md for what
follows. A curve without both rates is left out, as is one on which a rate is recorded as diverged.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from statistics import fmean

RESULTS = Path(__file__).parent / "results"
STUDIES = ("banking77", "screening", "final", "screening-cola", "prompts", "cifar10-rank", "cifar10-bases")
RATES = (1e-3, 3e-3)


def curves() -> Iterator[tuple[str, tuple, dict[str, float]]]:
    """Method, what it was tried on, and score by rate; the same cell in two files is one curve."""
    for name in STUDIES:
        for cell in json.loads((RESULTS / f"study-{name}.json").read_text(encoding="utf-8"))["cells"]:
            if cell["validation"] and cell["higher"]:
                method = "hira" if cell["method"].startswith("hira-") else cell["method"]  # one for each budget
                yield method, (name, cell["column"], str(cell["budget"]), cell["row"]), cell["validation"]


def main() -> None:
    """Print the table, in points: curves, and behind the best at each rate, mean and most."""
    behind = defaultdict(dict)
    for method, place, scores in curves():
        at = {rate: score for rate in RATES for key, score in scores.items() if isclose(float(key), rate)}
        if len(at) == len(RATES) and None not in scores.values():
            behind[method][place] = [max(scores.values()) - at[rate] for rate in RATES]
    for method, found in sorted(behind.items()):
        columns = zip(*found.values(), strict=True)
        shown = [f"{rate:g}: {fmean(c):.1f}, {max(c):.1f}" for rate, c in zip(RATES, columns, strict=True)]
        print(f"{method} | {len(found)} | {' | '.join(shown)}")


if __name__ == "__main__":
    main()
