"""Prompt methods as PEFT tuners: the prompts are a module beside CLIP's towers, saved and loaded as any adapter."""

from typing import Any, ClassVar

from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from transformers import CLIPModel

from randlora.errors import ConfigError, LayerError
from randlora.methods.prompts.beside import put_beside
from randlora.methods.prompts.prompts import Prompts


class PromptTuner(BaseTuner):
    """Puts the prompts of a method beside the towers; used through `peft.get_peft_model` and `peft.PeftModel`.

    CLIP's own forward pass is left as it is: `Prompts.image` and `Prompts.text` are the one with prompts.
    """

    prompts_class: ClassVar[type[Prompts]]

    def inject_adapter(self, model: nn.Module, adapter_name: str, *_: Any, **__: Any) -> None:
        """Freeze the model and add the prompts.

        Raises:
            LayerError: The model is no CLIP with two towers.
            ConfigError: There are prompts already, or the config does not fit the model.
        """
        config: Any = self.peft_config[adapter_name]
        if not isinstance(model, CLIPModel):
            expected = "a CLIPModel, with a text and a vision tower"
            raise LayerError("the base model of prompts", expected=expected, got=type(model).__name__)
        if prompts_of(model) is not None:
            raise ConfigError(
                "adapter_name", expected="one set of prompts on a model", got=f"another, {adapter_name!r}"
            )
        model.requires_grad_(False)
        if config.adapter is not None:
            config.adapter = put_beside(model, adapter_name, config.adapter, inference_mode=config.inference_mode)
        prompts = self.prompts_class(config, model).to(model.device)
        prompts.requires_grad_(not config.inference_mode)
        setattr(model, f"{self.prefix}prompts", nn.ModuleDict({adapter_name: prompts}))

    @classmethod
    def _get_adapter_state_dict(cls, *, state_dict: dict[str, Tensor], **others: Any) -> dict[str, Tensor]:
        beside: dict[str, Tensor] = super()._get_adapter_state_dict(state_dict=state_dict, **others)
        return beside | {name: tensor for name, tensor in state_dict.items() if f"{cls.prefix}prompts." in name}

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        place = f"{cls.prefix}prompts."
        if place in key:
            return key.replace(f"{place}{adapter_name}.", place, 1)
        other: str = super()._remove_adapter_name_from_key(key, adapter_name)
        return other

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, *, adapter_name: str, state_dict: dict[str, Tensor], **others: Any
    ) -> dict[str, Tensor]:
        place = f"{cls.prefix}prompts."
        state_dict = super()._remap_adapter_state_dict_for_load(
            adapter_name=adapter_name, state_dict=state_dict, **others
        )
        return {name.replace(place, f"{place}{adapter_name}.", 1): tensor for name, tensor in state_dict.items()}

    def _unload_and_optionally_merge(self, *_: Any, merge: bool = True, **__: Any) -> Any:
        if merge:
            hint = "keep the adapter beside its base model"
            raise LayerError("prompts", expected="an adapter of weights to merge", got="one of inputs", hint=hint)
        if any(isinstance(part, BaseTunerLayer) for part in self.model.modules()):
            raise LayerError(
                "prompts", expected="no adapter of the weights beside them", got="one", hint="load the base"
            )
        delattr(self.model, f"{self.prefix}prompts")
        return self.model

    def merge_adapter(self, *_: Any, **__: Any) -> None:
        """Refused: prompts are inputs, and no update of a weight.

        Raises:
            LayerError: Always.
        """
        self._unload_and_optionally_merge()

    def delete_adapter(self, *_: Any, **__: Any) -> None:
        """Refused: PEFT's takes adapters from layers.

        Raises:
            LayerError: Always.
        """
        raise LayerError("prompts", expected="an adapter of weights to delete", got="one of inputs", hint="unload it")

    def add_weighted_adapter(self, *_: Any, **__: Any) -> None:
        """Refused: there is one set of prompts on a model.

        Raises:
            LayerError: Always.
        """
        raise LayerError("prompts", expected="adapters of weights to sum", got="one of inputs")

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:  # noqa: ARG002 - PEFT's
        return peft_config

    def _check_target_module_exists(self, *_: Any) -> bool:
        return False

    def _create_and_replace(self, *_: Any, **__: Any) -> None:
        """PEFT's hook for layers; prompts replace none."""


def prompts_of(model: nn.Module) -> Prompts | None:
    """The prompts beside a model's towers, or None."""
    return next((part for part in model.modules() if isinstance(part, Prompts)), None)
