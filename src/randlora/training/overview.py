"""What each method is and what it costs: equation, trained numbers, rank and bytes on a large model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from transformers import CLIPConfig

from randlora.methods import CATALOGUE, PROMPTS
from randlora.methods.catalogue import Method, Shown, diagonal_numbers
from randlora.methods.randlora import RandLoraConfig

Shape = tuple[int, int]

# (out, in) of the layers that the paper adapts in a block of Llama-3-8B: q, k, v, up, down; 32 blocks.
LLAMA_3_8B = ((4096, 4096), (1024, 4096), (1024, 4096), (14336, 4096), (4096, 14336))
BLOCKS = 32
PARAMETERS = 8_030_261_248
PROMPT_CLASSES = 50
_BYTES = 4  # trained numbers are kept in float32


@dataclass(frozen=True)
class Entry:
    """A method with its settings.

    Attributes:
        title: Name and setting.
        name: The method's name in a config.
        options: Keys of the `method` section that the setting stands for.
        equation: ΔW, or the adapted layer's output where there is none.
        trained: (out, in) -> trained numbers.
        rank: (out, in) -> highest rank of ΔW; None where there is no one ΔW.
        paper: The paper's percentage of trained numbers on Llama-3-8B (Table 15); None where it has none.
        mergeable: Whether ΔW can be added to W₀.
    """

    title: str
    name: str
    options: dict[str, object]
    equation: str
    trained: Callable[[int, int], int]
    rank: Callable[[int, int], int] | None
    paper: float | None = None
    mergeable: bool = True


def _lora(r: int, name: str = "lora", paper: float | None = None) -> Entry:
    equations = {"lora": "(α/r)·B·A", "pissa": "(α/r)·(B·A - B₀·A₀), from W₀'s singular vectors"}
    return Entry(
        f"{name} r={r}", name, {"r": r}, equations[name], lambda o, i: r * (o + i), lambda o, i: min(o, i, r), paper
    )


def _of_the_catalogue(method: Method) -> list[Entry]:
    return [_shown(method, shown) for shown in method.shown]


def _shown(method: Method, shown: Shown) -> Entry:
    config = method.config(**{**method.start, **shown.values})
    options: dict[str, object] = {key: value for key, value in shown.values.items() if key in method.keys}
    special = {name: value for name, value in shown.values.items() if name not in method.keys}
    return Entry(
        shown.title,
        method.name,
        {**options, "options": special} if special else options,
        method.equation,
        partial(method.trained, config),
        None if method.rank is None else partial(method.rank, config),
        shown.paper,
        mergeable=method.rank is not None,
    )


ENTRIES = (
    Entry("full", "full", {}, "any", lambda o, i: o * i, min),
    _lora(16, paper=0.35),
    _lora(32, paper=0.7),
    _lora(64, paper=1.4),
    Entry(
        "dora r=32",
        "dora",
        {"r": 32},
        "magnitude · (W₀ + (α/r)·B·A) / column norms - W₀",
        lambda o, i: 32 * (o + i) + o,
        min,
    ),
    _lora(32, "pissa"),
    Entry(
        "adalora r=32",
        "adalora",
        {"r": 32},
        "(α/r)·P·Λ·Q, starting at rank 48",
        lambda o, i: 48 * (o + i + 1),
        lambda o, i: min(o, i, 48),
    ),
    Entry(
        "autolora r=32",
        "autolora",
        {"r": 32},
        "(α/r_l)·B·A, a layer's r_l of 1 to 32 found on validation data",
        lambda o, i: 32 * (o + i),
        lambda o, i: min(o, i, 32),
    ),
    Entry(
        "auto_randlora r=30",
        "auto_randlora",
        {"r": 30},
        "g·Σ_j B_j·Λ_j·A·Γ_j, the numbers of r=30 spread by what layers gain on validation data",
        lambda o, i: diagonal_numbers(RandLoraConfig(r=30), o, i),
        min,
    ),
    Entry(
        "vera r=1024",
        "vera",
        {"r": 1024},
        "Λ_b·B·Λ_d·A, B and A random",
        lambda o, i: o + 1024,  # noqa: ARG005 - one signature for all
        lambda o, i: min(o, i, 1024),
        paper=0.014,
    ),
    *(entry for method in CATALOGUE for entry in _of_the_catalogue(method)),
)


@dataclass(frozen=True)
class Row:
    """An entry on Llama-3-8B; ranks are those of a 4096 × 4096 layer."""

    method: str
    equation: str
    trained: int
    percent: float
    paper: float | None
    rank: int | None
    stored_bytes: int
    mergeable: bool


def overview() -> list[Row]:
    """Every entry on the q, k, v, up and down projections of Llama-3-8B."""
    rows = []
    for entry in ENTRIES:
        trained = BLOCKS * sum(entry.trained(*shape) for shape in LLAMA_3_8B)
        rank = None if entry.rank is None else entry.rank(*LLAMA_3_8B[0])
        percent = 100 * trained / PARAMETERS
        stored = _BYTES * trained
        rows.append(Row(entry.title, entry.equation, trained, percent, entry.paper, rank, stored, entry.mergeable))
    return rows


@dataclass(frozen=True)
class PromptRow:
    """A method of prompts on CLIP ViT-B, with its defaults and 50 classes in training."""

    method: str
    equation: str
    trained: int
    stored_bytes: int


def prompt_overview() -> list[PromptRow]:
    """Every method of prompts on CLIP ViT-B/16 or B/32, whose towers and features have these widths."""
    clip = CLIPConfig(text_config={"hidden_size": 512}, vision_config={"hidden_size": 768}, projection_dim=512)
    rows = []
    for method in PROMPTS:
        trained = method.trained(method.config(**{**method.start, "classes": PROMPT_CLASSES}), clip)
        rows.append(PromptRow(method.name, method.equation, trained, _BYTES * trained))
    return rows
