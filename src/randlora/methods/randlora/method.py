"""The records of RandLoRA and of its variant of half the rank."""

from randlora.methods.catalogue import Method, Shown
from randlora.methods.randlora.config import RandLoraConfig
from randlora.methods.randlora.tuner import RandLoraTuner


def _trained(config: RandLoraConfig, out: int, inner: int) -> int:
    return config.trained_numbers((out, inner), config.r)


def highest_rank(config: RandLoraConfig, out: int, inner: int) -> int:
    """See `Method.rank`."""
    sizes = config.basis_sizes((out, inner), config.r)
    return min(out, inner, sizes.r * sizes.num_bases)


METHOD = Method(
    name="randlora",
    config=RandLoraConfig,
    tuner=RandLoraTuner,
    equation="g·Σ_j B_j·Λ_j·A·Γ_j",
    trained=_trained,
    rank=highest_rank,
    shown=(
        Shown("randlora r=60", {"r": 60, "bases": "structured"}, paper=0.36),
        Shown("randlora r=30", {"r": 30, "bases": "structured"}, paper=0.7),
        Shown("randlora r=15", {"r": 15, "bases": "structured"}, paper=1.4),
    ),
)
HALF = Method(
    name="randlora_b",
    config=RandLoraConfig,
    tuner=RandLoraTuner,
    equation="g·Σ_j B_j·Λ_j·A·Γ_j with rank r/2 each",
    trained=_trained,
    rank=highest_rank,
    shown=(Shown("randlora_b r=30", {"r": 30, "bases": "structured"}),),
    start={"rank_fraction": 0.5},
)
