"""`randlora.update` with its shape annotations checked at run time, and the literal equation 4 to judge it by."""

import importlib
import sys
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import install_import_hook
from torch import Tensor

import literal
import randlora
from randlora.bases import Bases, DenseBases, PeftBases, StructuredBases
from randlora.update import Form, UpdateSpec

PLANS = {
    "factored": ("factored", "factored"),
    "folded": ("folded", "folded"),
    "mixed": ("folded", "factored"),
}
CPU = torch.device("cpu")
FAMILIES = ("uniform", "normal", "ternary", "ternary-6", "ternary-20", "structured", "peft", "separate")


@pytest.fixture(scope="session")
def update():
    """A second, checked import of `randlora.update`; the first one stays in place for every other test.

    Its kernels are shared: an operator of PyTorch's that is registered again leaves the first one dangling.
    """
    name = "randlora.update"

    def modules():
        return [key for key in sys.modules if key.startswith(name) and not key.startswith(f"{name}.kernels")]

    plain = {key: sys.modules.pop(key) for key in modules()}
    with install_import_hook(name, "beartype.beartype"):
        checked = importlib.import_module(name)
    for key in modules():
        del sys.modules[key]
    sys.modules.update(plain)
    randlora.update = plain[name]
    return checked


def make_bases(family: str, r: int, small: int, large: int) -> Bases:
    if family == "structured":
        return StructuredBases(5)
    if family == "peft":
        # PEFT draws for the largest layer; this one is a corner of it.
        return PeftBases(5, r, large + 2, small + 3)
    if family == "separate":
        return DenseBases("uniform", 5, separate=True)
    name, _, sparsity = family.partition("-")
    return DenseBases(name, 5, float(sparsity or 2))


@dataclass
class Case:
    """One layer, its adapter and a batch, in float64 unless cast."""

    spec: UpdateSpec
    form: Form
    A: Tensor
    B: Tensor
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    lambda_: Tensor
    gamma: Tensor

    @property
    def scaling(self) -> float:
        return self.spec.scaling

    @property
    def small_is_input(self) -> bool:
        return self.spec.small_is_input

    @property
    def leaves(self) -> list[Tensor]:
        """What gets a gradient."""
        return [t for t in (self.x, self.lambda_, self.gamma, self.bias) if t is not None]

    def equation_4(self) -> Tensor:
        """ΔW (out, in)."""
        total = literal.equation_4(self.A, self.B, self.lambda_, self.gamma, self.scaling)
        return total if self.small_is_input else total.T

    def expected(self) -> Tensor:
        """The layer's output by equation 4."""
        return F.linear(self.x, self.weight + self.equation_4(), self.bias)

    def by(self, update, strategy: str) -> Tensor:
        """The layer's output by a strategy."""
        adapter = (self.lambda_, self.gamma)
        if strategy == "reference":
            small_is_input = self.small_is_input
            delta = update.reference_delta_weight(self.A, self.B, *adapter, self.scaling, small_is_input=small_is_input)
            return F.linear(self.x, self.weight + delta, self.bias)
        form = getattr(update, type(self.form).__name__)(*self.form)  # of this import, with its operators
        shared = (*adapter, self.spec, form)
        if strategy == "added":  # to what the base layer gives, as for base layers that are more than a matrix
            return F.linear(self.x, self.weight, self.bias) + update.factored_update(self.x, *shared)
        return update.adapted_linear(self.x, self.weight, self.bias, *shared, update.Plan(*PLANS[strategy]))


@pytest.fixture(scope="session")
def make_case(update):
    """Build a `Case`: family, r, (small, large), orientation, leading dimensions of x."""

    def make(
        family,
        r,
        small,
        large,
        *,
        small_is_input=True,
        batch=(5,),
        bias=True,
        dtype=torch.float64,
        strided=False,
        seed=0,
        num_bases=None,
        terms=1,
    ):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        bases = make_bases(family, r, small, large)
        bases_count = num_bases or -(-small // r)
        sizes = update.Sizes(r, bases_count, small, large)
        form, exact = (bases.form(sizes, CPU, of) for of in (dtype, torch.float64))
        spec = update.UpdateSpec(sizes, small_is_input, 0.7 / small * bases.scale(r))
        A, B = exact.operator(sizes).pair()
        inputs, outputs = (small, large) if small_is_input else (large, small)
        x = normal(inputs, *batch).movedim(0, -1) if strided else normal(*batch, inputs)
        # λ and γ are float32 unless all is float64.
        trained = torch.float64 if dtype == torch.float64 else torch.float32
        case = Case(
            spec=spec,
            form=form,
            A=A,
            B=B,
            x=x.to(dtype),
            weight=(normal(outputs, inputs) / inputs**0.5).to(dtype),
            bias=normal(outputs).to(dtype) if bias else None,
            lambda_=normal(terms * bases_count, r).to(trained),
            gamma=normal(terms * bases_count, small).to(trained),
        )
        for leaf in case.leaves:
            leaf.requires_grad_()
        return case

    return make
