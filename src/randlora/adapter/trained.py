"""Trained tensors, each in a module of its own."""

from torch import Tensor, nn


class TrainedTensor(nn.Module):
    """A trained tensor of one adapter on one layer.

    Its parameter is called `….randlora_lambda.default.weight`, the adapter's name inside, as the parts of PEFT's LoRA
    are: by that TRL finds the tensors to copy into a reference adapter, and PEFT's wrap policy for FSDP the modules to
    shard apart from the frozen ones. In a checkpoint it is `….randlora_lambda`.

    Args:
        tensor: Its initial value.
    """

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(tensor)

    def forward(self) -> Tensor:
        """The tensor as a copy, since what has gathered or loaded it for this call may take it away after it."""
        return self.weight.clone()

    def value(self) -> Tensor:
        """The tensor itself; whole, as a copy, where a call gathers it: FSDP, ZeRO-3, accelerate's offloading."""
        gathered = type(self) is not TrainedTensor or hasattr(self, "_hf_hook") or self._forward_pre_hooks
        return self() if gathered else self.weight
