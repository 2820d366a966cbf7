"""`RandLoraConfig`: what a RandLoRA adapter is, in PEFT's form."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from peft.utils.other import get_pattern_key

from randlora.adapter_config import (
    AdapterConfig,
    check_choice,
    check_count,
    check_expressions,
    check_positive,
    check_seed,
    is_number,
)
from randlora.errors import ConfigError
from randlora.update import Sizes

PEFT_TYPE = "RANDLORA_FULLRANK"
"""The adapter's own PEFT type: PEFT without this package stops at it instead of reading it as its own RandLora."""

FAMILIES = ("structured", "uniform", "normal", "ternary", "peft")
STRATEGIES = ("auto", "folded", "factored", "reference")
_DTYPES = ("bfloat16", "float16", "float32", "float64")


@dataclass
class RandLoraConfig(AdapterConfig):
    """Configuration of a RandLoRA adapter (Albert et al., ICLR 2025), for `peft.get_peft_model`.

    Per adapted layer with sides m ≤ M it trains n·r + n·m numbers, n = ⌈m/r⌉, about m²/r + m: a *smaller* r trains
    *more*. ΔW has rank m for every r.

    Attributes:
        r: Basis rank. Default 16.
        alpha: Size of the update: ΔW is multiplied by g = alpha·√r/m^(4/3). Default 8: LoRA's learning rates are the
            range to try first, and the best one found at one width and rank is that of the others within a factor of
            2 (measured, docs/log.md). With `bases="peft"` PEFT's scaling, g = alpha/r, and its default, 20·r.
        bases: Family of the frozen bases: `structured` (default, stores nothing), `uniform`, `normal`, `ternary`, or
            `peft` (PEFT's own draw and parametrization, to read and write its checkpoints).
        sparsity: For `ternary`: s ≥ 2, entries are ±1 with probability 1/s each (default 2), or "sqrt" for s = √m of
            the largest adapted layer. For `peft`: None, 6 (PEFT's `sparse`) or "sqrt" (its `very_sparse`).
        seed: Seed of the bases, 0 ≤ seed < 2⁶³. Default 0.
        dropout: Probability of dropping an input of the update while training. Default 0; above it only the
            `factored` and `reference` strategies apply.
        num_bases: n, the number of bases of every layer, at most ⌈m/r⌉, which is the default. With fewer ΔW has rank
            r·n only (paper § 6.3, Table 2).
        rank_fraction: Fraction of the full rank that ΔW has, at the same number of trained γ: the basis rank becomes
            this fraction of r, the number of bases remains. Default 1; 0.5 is the paper's RandLoRA-b.
        separate_a: An A for each basis (paper eq. 3) in place of one for all (eq. 4). Default False; the second matrix
            costs m² numbers in memory, shared by all layers.
        terms: Number of updates on the same bases that are summed, each with a λ and a γ of its own. Default 1;
            `add_weighted_adapter` sets it.
        strategy: How ΔW is applied: `auto` (a cost model chooses, the default), `folded`, `factored` or `reference`.
        target_modules: Names of the modules to adapt: a list of suffixes, one regular expression, or "all-linear".
            None takes PEFT's default for the architecture.
        target_parameters: Names of parameters to adapt in place of modules, or beside them: a list of suffixes such as
            `mlp.experts.gate_up_proj`. A stack (experts, ·, ·) gets one update per expert.
        exclude_modules: Names to leave out: a list of suffixes or one regular expression.
        modules_to_save: Names of further modules to train whole and to save.
        bias: Which biases to train: `none` (default), `all` or `randlora_only`.
        layers_to_transform: Index or indices of the blocks to adapt; None adapts all. A layer's block is the first
            number in its name; layers in no block are left out unless their full name is listed.
        layers_pattern: Name of the block list, where it is not one of the usual names.
        rank_pattern: Layer name or regular expression -> its r.
        alpha_pattern: Layer name or regular expression -> its alpha.
        strategy_pattern: Layer name or regular expression -> its strategy, where the cost model's is not wanted.
        fan_in_fan_out: Accepted for PEFT's callers; the layout is read from the layer itself.
        base_shapes: Adapted layer -> its shape; filled in, checked at load.
        init_weights: True starts with ΔW = 0; False with random λ and γ, for tests.
        bases_version: Version of the draw; filled in.
        bases_fingerprint: Hash of the drawn bases; filled in, checked at load.
        peft_draw: For `bases="peft"`: the shape and dtype PEFT drew with; filled in.

    Raises:
        ConfigError: A value is out of range or does not go with another.

    Example:
        >>> from randlora import RandLoraConfig
        >>> RandLoraConfig(r=8, target_modules=["q_proj", "v_proj"]).alpha
        8.0
    """

    type_name: ClassVar[str] = PEFT_TYPE
    prefix: ClassVar[str] = "randlora_"

    r: int = 16
    alpha: float | None = None  # becomes the family's default
    bases: str = "structured"
    sparsity: float | str | None = None
    seed: int = 0
    num_bases: int | None = None
    rank_fraction: float = 1.0
    separate_a: bool = False
    terms: int = 1
    strategy: str = "auto"
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    strategy_pattern: dict[str, str] = field(default_factory=dict)
    init_weights: bool = True
    bases_version: int | None = None
    bases_fingerprint: str | None = None
    peft_draw: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank_pattern", "alpha_pattern", "strategy_pattern"):
            if not isinstance(getattr(self, name), dict):
                raise ConfigError(name, expected="layer names with a value each", got=repr(getattr(self, name)))
            for key in getattr(self, name):
                check_expressions(name, key)
        check_choice("bases", self.bases, FAMILIES)
        for name, strategy in _with_pattern("strategy", self.strategy, "strategy_pattern", self.strategy_pattern):
            check_strategy(name, strategy, self.dropout)
        for name, rank in _with_pattern("r", self.r, "rank_pattern", self.rank_pattern):
            check_count(name, rank, hint="a smaller r trains more numbers")
        if self.alpha is None:
            self.alpha = default_alpha(self.bases, self.r)
        for name, alpha in _with_pattern("alpha", self.alpha, "alpha_pattern", self.alpha_pattern):
            check_positive(name, alpha)
        check_seed(self.seed)
        self._check_variant()
        _check_sparsity(self.bases, self.sparsity)
        if self.peft_draw is not None:
            _check_draw(self.peft_draw)

    def trained_numbers(self, shape: tuple[int, int], r: int) -> int:
        """Trained numbers of a layer.

        Args:
            shape: (out, in).
            r: Its basis rank, in place of the config's.
        """
        sizes = self.basis_sizes(shape, r)
        return self.terms * sizes.num_bases * (sizes.r + sizes.small)

    def basis_sizes(self, shape: tuple[int, int], r: int) -> Sizes:
        """Of a layer's bases, whose rank is r times `rank_fraction`.

        Args:
            shape: (out, in).
            r: The layer's basis rank, in place of the config's.
        """
        small, large = sorted(shape)
        bases_count = min(-(-small // r), self.num_bases or small)
        return Sizes(max(1, round(self.rank_fraction * r)), bases_count, small, large)

    def _check_variant(self) -> None:
        if self.num_bases is not None:
            check_count("num_bases", self.num_bases)
        check_count("terms", self.terms)
        if not is_number(self.rank_fraction) or not 0 < self.rank_fraction <= 1:
            raise ConfigError("rank_fraction", expected="a number in (0, 1]", got=repr(self.rank_fraction))
        if self.separate_a and self.bases in ("structured", "peft"):
            raise ConfigError(
                "separate_a", expected="False with these bases", hint="uniform, normal and ternary have it"
            )
        if self.bases == "peft" and (self.num_bases is not None or self.rank_fraction != 1):
            raise ConfigError("bases", expected="num_bases and rank_fraction left out with bases='peft'")
        if self.bases == "peft" and self.rank_pattern:
            raise ConfigError("rank_pattern", expected="none with bases='peft'", hint="PEFT has one rank per adapter")

    def describe(self) -> dict[str, str]:
        """See `AdapterConfig`."""
        scaling = "alpha/r" if self.bases == "peft" else "alpha·√r/m^(4/3), m the smaller side"
        sparsity = "" if self.sparsity is None else f", sparsity {self.sparsity}"
        facts = {
            "method": "RandLoRA ([Albert et al., ICLR 2025](https://arxiv.org/abs/2502.00987))",
            "update": f"ΔW = g · Σⱼ Bⱼ Λⱼ A{'ⱼ' if self.separate_a else ''} Γⱼ, g = {scaling}",
            "bases": f"{self.bases}{sparsity}, seed {self.seed}",
            "r": f"{self.r}{', by layer in the config' if self.rank_pattern else ''}",
            "alpha": f"{self.alpha:g}{', by layer in the config' if self.alpha_pattern else ''}",
        }
        if self.num_bases is not None:
            facts["bases of a layer"] = f"{self.num_bases}"
        if self.rank_fraction != 1:
            facts["rank"] = f"{self.rank_fraction:g} of the full rank"
        if self.terms > 1:
            facts["terms"] = f"{self.terms}, such updates on the same bases, summed"
        return facts


def by_pattern(pattern: dict[str, Any], name: str, default: Any) -> Any:
    """What a `…_pattern` of a config says of a layer.

    Args:
        pattern: Layer name or regular expression -> value.
        name: The layer's name.
        default: Of a layer that nothing matches.
    """
    return pattern.get(get_pattern_key(pattern.keys(), name), default)


def check_strategy(name: str, strategy: Any, dropout: float) -> None:
    """Raise a ConfigError unless a value is a strategy that goes with the dropout."""
    check_choice(name, strategy, STRATEGIES)
    if dropout and strategy == "folded":
        raise ConfigError(name, expected="auto or factored where dropout > 0", got="'folded'")


def default_alpha(bases: str, r: int) -> float:
    """The alpha of a config that gives none: 8, for `peft` bases PEFT's 20·r."""
    return 20.0 * r if bases == "peft" else 8.0


def _with_pattern(name: str, value: Any, pattern_name: str, pattern: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value), *((f"{pattern_name}[{key!r}]", entry) for key, entry in pattern.items())]


def _check_draw(draw: Any) -> None:
    sides = [draw.get(side) for side in ("rows", "columns")] if isinstance(draw, dict) else []
    if not sides or not all(isinstance(side, int) and side > 0 for side in sides) or draw.get("dtype") not in _DTYPES:
        raise ConfigError("peft_draw", expected=f"rows, columns and a dtype of {', '.join(_DTYPES)}", got=repr(draw))


def _check_sparsity(bases: str, sparsity: Any) -> None:
    if sparsity is None or sparsity == "sqrt":
        valid = sparsity is None or bases in ("ternary", "peft")
    elif bases == "peft":
        valid = sparsity == 6
    else:
        valid = bases == "ternary" and is_number(sparsity) and math.isfinite(sparsity) and sparsity >= 2
    if not valid:
        expected = {
            "ternary": "None, a number of 2 or more, or 'sqrt'",
            "peft": "None, 6 or 'sqrt'",
        }.get(bases, f"None, since bases={bases!r} is dense")
        raise ConfigError("sparsity", expected=expected, got=repr(sparsity))
