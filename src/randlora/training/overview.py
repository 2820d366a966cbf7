"""What each method is and what it costs: equation, trained numbers, rank and bytes on a large model."""

from collections.abc import Callable
from dataclasses import dataclass

Shape = tuple[int, int]

# (out, in) of the layers that the paper adapts in a block of Llama-3-8B: q, k, v, up, down; 32 blocks.
LLAMA_3_8B = ((4096, 4096), (1024, 4096), (1024, 4096), (14336, 4096), (4096, 14336))
BLOCKS = 32
PARAMETERS = 8_030_261_248
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


def _randlora(r: int, paper: float | None = None, name: str = "randlora", bases: str = "structured") -> Entry:
    equation = {
        "randlora": "g·Σ_j B_j·Λ_j·A·Γ_j",
        "randlora_a": "g·(Σ_j B_j·Λ_j)·(Σ_j A_j·Γ_j)",
        "randlora_b": "g·Σ_j B_j·Λ_j·A·Γ_j with rank r/2 each",
        "spectral": "g·Σ_j B_j·Λ_j·A·Γ_j, B_j and A of W₀'s singular vectors",
    }[name]
    width = max(1, r // 2) if name == "randlora_b" else r

    def count(o: int, i: int) -> int:
        return -(-min(o, i) // r)

    def rank(o: int, i: int) -> int:
        return min(o, i, r if name == "randlora_a" else width * count(o, i))

    options: dict[str, object] = {"r": r} if name in ("randlora_a", "spectral") else {"r": r, "bases": bases}
    return Entry(f"{name} r={r}", name, options, equation, lambda o, i: count(o, i) * (width + min(o, i)), rank, paper)


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
        "vera r=1024",
        "vera",
        {"r": 1024},
        "Λ_b·B·Λ_d·A, B and A random",
        lambda o, i: o + 1024,  # noqa: ARG005 - one signature for all
        lambda o, i: min(o, i, 1024),
        paper=0.014,
    ),
    Entry(
        "nola r=1, 1024 bases",
        "nola",
        {"r": 1, "options": {"num_bases": 1024}},
        "(α/r)·(Σ_i β_i·B_i)·(Σ_i α_i·A_i)",
        lambda o, i: 2 * 1024,  # noqa: ARG005
        lambda o, i: min(o, i, 1),
        paper=0.004,
    ),
    Entry("pranc, 256 bases", "pranc", {}, "Σ_i α_i·W_i, W_i random", lambda o, i: 256, min),  # noqa: ARG005
    Entry(
        "lora_xs r=16",
        "lora_xs",
        {"r": 16},
        "(α/r)·U_r·R·Σ_r·V_rᵀ of W₀'s singular vectors",
        lambda o, i: 16 * 16,  # noqa: ARG005
        lambda o, i: min(o, i, 16),
    ),
    Entry("svft, banded, 2", "svft", {}, "U·M·Vᵀ, M sparse", lambda o, i: 5 * min(o, i) - 6, min),
    Entry(
        "hydralora r=4, 4 heads",
        "hydralora",
        {},
        "y += (α/r)·Σ_h ω_h(x)·B_h·A·x",
        lambda o, i: 4 * i + 4 * 4 * o + 4 * i,
        None,
        mergeable=False,
    ),
    _randlora(60, 0.36),
    _randlora(30, 0.7),
    _randlora(15, 1.4),
    _randlora(30, name="randlora_a"),
    _randlora(30, name="randlora_b"),
    _randlora(30, name="spectral"),
    Entry(
        "hybrid r=60, lora_r=16",
        "hybrid",
        {"r": 60, "options": {"lora_r": 16}},
        "s·B·A + g·Σ_j B_j·Λ_j·A_R·Γ_j",
        lambda o, i: 16 * (o + i) + -(-min(o, i) // 60) * (60 + min(o, i)),
        min,
    ),
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
