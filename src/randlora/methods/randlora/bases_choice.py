"""From a config and the shapes of the adapted layers to the bases, and the check that they are the recorded ones."""

from collections.abc import Mapping
from math import sqrt
from typing import Any, cast

from randlora.bases import SCHEME_VERSION, Bases, PeftBases, StoredBases, StructuredBases, dense_bases
from randlora.bases.dense import DenseFamily
from randlora.bases.peft_draw import PeftSparsity
from randlora.errors import CheckpointError
from randlora.methods.randlora.config import RandLoraConfig


def resolve_bases(config: RandLoraConfig, layers: Mapping[str, tuple[tuple[int, int], int]]) -> Bases:
    """The bases of an adapter; writes what a later load needs into the config, and checks it where it is there.

    Args:
        config: The adapter's configuration; its `sparsity`, `bases_…` and `peft_draw` fields are filled in.
        layers: Name of every adapted layer -> its (out, in) and its r.

    Raises:
        CheckpointError: The config records bases that this version draws differently, or does not know.
    """
    if config.bases_version not in (None, *range(1, SCHEME_VERSION + 1)):
        raise CheckpointError(
            "bases_version",
            expected=f"an integer from 1 to {SCHEME_VERSION}",
            got=repr(config.bases_version),
            hint="a newer randlora wrote the adapter: upgrade; or its config is damaged",
        )
    if config.bases_version == 1 and config.bases == "structured":
        _check_first_version(config, layers)
    bases = _make_bases(config, [shape for shape, _ in layers.values()])
    fingerprint = bases.fingerprint()
    if config.bases_fingerprint is not None and config.bases_fingerprint != fingerprint:
        raise CheckpointError(
            "bases_fingerprint",
            expected=config.bases_fingerprint,
            got=fingerprint,
            hint=f"the config's bases={config.bases!r}, seed={config.seed} do not draw the bases it was trained with",
        )
    config.bases_version, config.bases_fingerprint = SCHEME_VERSION, fingerprint
    return bases


def _check_first_version(config: RandLoraConfig, layers: Mapping[str, tuple[tuple[int, int], int]]) -> None:
    """Raise where the first version of the structured bases of a layer was another (see `SCHEME_VERSION`)."""
    for name, (shape, r) in layers.items():
        sizes = config.basis_sizes(shape, r)
        if sizes.large < sizes.r * sizes.num_bases:
            raise CheckpointError(
                f"layer {name!r} of shape {shape}",
                expected=f"structured bases of version {SCHEME_VERSION}",
                got=f"those of version 1, with which r={r} does not give this layer full rank",
                hint="train the adapter again, or load it with the version of randlora that wrote it",
            )


def _make_bases(config: RandLoraConfig, shapes: list[tuple[int, int]]) -> Bases:
    if config.bases == "structured":
        return StructuredBases(config.seed)
    if config.bases == "peft":
        return _peft_bases(config, shapes)
    if config.bases == "ternary":
        if config.sparsity == "sqrt":
            # √m of the largest layer, as in the paper; kept as a number so that another set of layers changes nothing.
            config.sparsity = sqrt(max([4, *map(min, shapes)]))
        config.sparsity = float(config.sparsity or 2.0)
    sparsity = config.sparsity if config.bases == "ternary" else 2.0
    family = cast("DenseFamily", config.bases)
    return dense_bases(family, config.seed, cast("float", sparsity), config.separate_a)


def _peft_bases(config: RandLoraConfig, shapes: list[tuple[int, int]]) -> PeftBases | StoredBases:
    if config.peft_draw is None:
        outs, ins = ([shape[side] for shape in shapes] or [1] for side in (0, 1))
        rows, columns = max(*outs, *ins), min(max(outs), max(ins))
        config.peft_draw = {"rows": rows, "columns": columns, "dtype": "bfloat16"}
    names: dict[float | str | None, PeftSparsity] = {None: "dense", 6: "sparse", "sqrt": "very_sparse"}
    draw = config.peft_draw
    _check_cover(draw, shapes)
    if draw.get("stored"):
        return StoredBases(config.r, draw["rows"], draw["columns"], draw["dtype"])
    sparsity = names[config.sparsity]
    return PeftBases(config.seed, config.r, draw["rows"], draw["columns"], sparsity, draw["dtype"])


def _check_cover(draw: dict[str, Any], shapes: list[tuple[int, int]]) -> None:
    """Raise unless a layer of each shape can slice its bases from the draw; λ and γ do not show the larger side."""
    for shape in shapes:
        if max(shape) > draw["rows"] or min(shape) > draw["columns"]:
            raise CheckpointError(
                f"layer of shape {shape}",
                expected=f"sides of at most {draw['rows']} and {draw['columns']}, which the bases were drawn for",
                hint="the adapter, or the config, was used for another base model; use a new config for this one",
            )
