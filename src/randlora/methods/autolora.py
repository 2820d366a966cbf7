"""AutoLoRA: a LoRA whose rank on each layer is found on held-out data.

Zhang et al., "AutoLoRA: Automatically Tuning Matrix Ranks in Low-Rank Adaptation Based on Meta Learning", NAACL 2024.
Here is what the search adds to PEFT's LoRA; `randlora.training.run.rank_search` is the search.
"""

from dataclasses import dataclass

import peft
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import MultiheadAttention, ParamWrapper
from torch import Tensor, nn

from randlora.adapter_config import check_count, check_positive
from randlora.errors import ConfigError, LayerError

ADAPTER = "default"


@dataclass
class AutoLoraConfig(peft.LoraConfig):
    """Configuration of the search: ΔW = (alpha/r)·Σ_j α_j·B_j·A_j on each layer, with α = softmax(a), a trained.

    The adapter that a run leaves is PEFT's plain LoRA with the ranks found.

    Attributes:
        r: k, the number of terms B_j·A_j that a layer begins with, 2 or more; no layer's rank will be higher.
        look_ahead: Whether the gradient of the a_j on the validation split is taken through one step of the weights
            (two more gradient passes in each step), as in the paper, or at the weights as they are (first order).
        threshold: The terms with an α_j of at least this much are counted as the layer's rank, which is 1 or more.
            None means 1/k, what all α_j are at the start.
        search_steps: Optimizer steps of the search. None means as many as the training with the ranks found has.
        selection_learning_rate: Peak learning rate of the a_j. Default 1e-3, the authors'.

    Raises:
        ConfigError: A value is out of range.
    """

    look_ahead: bool = True
    threshold: float | None = None
    search_steps: int | None = None
    selection_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.r < 2:
            raise ConfigError("r", expected="a rank of 2 or more", got=repr(self.r), hint="1 leaves nothing to find")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError("threshold", expected="a number between 0 and 1, or null", got=repr(self.threshold))
        if self.search_steps is not None:
            check_count("search_steps", self.search_steps)
        check_positive("selection_learning_rate", self.selection_learning_rate)


class SelectedTerms(nn.Linear):
    """LoRA's A with a selection variable for each row: the rows of A·x, and so the terms B_j·A_j·x, times α_j.

    Args:
        terms: LoRA's A (k, in), whose weight is shared.

    Attributes:
        selection: a (k,), starts at 0, where all α_j are 1/k.
    """

    def __init__(self, terms: nn.Linear) -> None:
        super().__init__(terms.in_features, terms.out_features, bias=False, device="meta")
        self.weight = terms.weight
        self.selection = nn.Parameter(terms.weight.new_zeros(terms.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """α ∘ A·x."""
        terms = super().forward(x)
        return terms * torch.softmax(self.selection, dim=0).to(terms.dtype)


def select_terms(model: PeftModel) -> None:
    """Give every layer of a new LoRA its selection variables, in place.

    Raises:
        LayerError: A layer is adapted whose update is not B·A·x with a linear A.
    """
    for name, layer in model.base_model.model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        terms = dict(layer.lora_A.items()).get(ADAPTER)
        other = isinstance(layer, (MultiheadAttention, ParamWrapper)) or ADAPTER in layer.lora_variant
        if other or not isinstance(terms, nn.Linear):
            hint = "choose others in method.target_modules"
            got = f"{name}, a {type(layer.get_base_layer()).__name__}"
            raise LayerError("autolora", expected="linear layers with a plain LoRA", got=got, hint=hint)
        layer.lora_A[ADAPTER] = SelectedTerms(terms)


def find_selections(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name of the adapted layer in the base model -> its selection variables a."""
    adapted = next(part for part in model.modules() if isinstance(part, PeftModel))
    end = f".lora_A.{ADAPTER}"
    return {
        name.removesuffix(end): part.selection
        for name, part in adapted.base_model.model.named_modules()
        if isinstance(part, SelectedTerms)
    }


def count_selected(selection: Tensor, threshold: float | None) -> int:
    """The rank that selection variables stand for.

    Args:
        selection: a (k,).
        threshold: Least α_j of a term that counts; None means 1/k.

    Returns:
        The number of terms, 1 or more.

    Example:
        >>> count_selected(torch.tensor([0.2, 0.1, -0.3]), None)
        2
    """
    shares = torch.softmax(selection.detach().double(), dim=0)
    least = 1 / len(shares) if threshold is None else threshold
    return max(1, int((shares >= least).sum()))
