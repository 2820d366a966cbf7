"""Image classification with CLIP: class names in prompts make a zero-shot head, which training improves."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, CLIPModel

from randlora.errors import ConfigError, DataError
from randlora.tasks.classification.config import ImageTextData
from randlora.tasks.classification.image_task import ImageTask
from randlora.tasks.classification.images import Preprocessing
from randlora.tasks.sources import BaseModel, load


class ZeroShotClassifier(nn.Module):
    """CLIP with the captions of the classes as its classifier: logits = exp(s) · normalized(image) · headᵀ.

    A row of the head (classes, width) is the normalized mean over the templates of the normalized text features.

    Args:
        clip: `CLIPModel`, adapted or not.
        prompts: Token ids and mask of all captions, (classes · templates, length) each, class by class.
        classes: Number of classes.
        text_trained: Whether the text tower changes in training. The head is then computed anew in every training
            step, with gradients; otherwise it is computed once, here.
        train_head: Whether the head is a parameter of its own that starts at the zero-shot head (a linear probe).
    """

    def __init__(
        self, clip: nn.Module, prompts: dict[str, Tensor], classes: int, *, text_trained: bool, train_head: bool
    ) -> None:
        super().__init__()
        self.clip, self.classes = clip, classes
        for name, tensor in prompts.items():
            self.register_buffer(f"prompt_{name}", tensor, persistent=False)
        self.prompt_names = tuple(prompts)
        self.cached_head: Tensor | None
        self.register_buffer("cached_head", None, persistent=False)
        self.text_trained = text_trained
        if not text_trained:
            clip.eval()
            with torch.no_grad():
                head = self.zero_shot_head()
            if train_head:
                self.head = nn.Parameter(head)
            else:
                self.cached_head = head

    def zero_shot_head(self) -> Tensor:
        """The head from the text tower as it is now, (classes, width)."""
        prompts = {name: getattr(self, f"prompt_{name}") for name in self.prompt_names}
        features = nn.functional.normalize(self._clip.get_text_features(**prompts).pooler_output, dim=-1)
        means = features.unflatten(0, (self.classes, -1)).mean(dim=1)
        return nn.functional.normalize(means, dim=-1)

    def train(self, mode: bool = True) -> "ZeroShotClassifier":
        """Switch to training or evaluation; an evaluation computes its head once, at its first batch."""
        if self.text_trained:
            self.cached_head = None
        super().train(mode)
        return self

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Classify images.

        Args:
            pixel_values: (batch, 3, height, width), normalized.

        Returns:
            "logits" (batch, classes).
        """
        images = self._clip.get_image_features(pixel_values).pooler_output
        head = self._head()
        # The scale is about 100: in bf16, logits of 25 would be 0.125 apart.
        with torch.autocast(images.device.type, enabled=False):
            images = nn.functional.normalize(images.float(), dim=-1)
            return {"logits": self._clip.logit_scale.exp() * images @ head.float().T}

    def _head(self) -> Tensor:
        if hasattr(self, "head"):
            return self.head
        if self.cached_head is not None:
            return self.cached_head
        head = self.zero_shot_head()
        if not torch.is_grad_enabled():
            self.cached_head = head
        return head

    @property
    def _clip(self) -> Any:
        """The CLIPModel inside a PEFT wrapper: adapters live in its layers, so that its methods use them."""
        return self.clip.get_base_model() if isinstance(self.clip, PeftModel) else self.clip


class ImageText(ImageTask):
    """CLIP with prompts as its classifier."""

    data_class = ImageTextData
    trained_head = False
    head = ("head",)
    data: ImageTextData

    @classmethod
    def check(cls, data: Any) -> None:
        """See `Task.check`."""
        super().check(data)
        if not data.prompt_templates:
            raise ConfigError("data.prompt_templates", expected="at least one template", got="none")
        for template in data.prompt_templates:
            if template.count("{}") != 1:
                raise ConfigError("data.prompt_templates", expected="templates with one {} each", got=repr(template))

    @classmethod
    def without_data(cls, data: Any) -> "ImageText":
        """See `Task.without_data`: the classes that have names, or two."""
        return cls(data, seed=0, facts={"label_names": data.class_names or ["0", "1"]})

    def load_model(self, base: BaseModel) -> None:
        """See `Task.load_model`: a `CLIPModel`."""
        model, trust_remote_code = base.name, base.trust_remote_code
        self.preprocessing = Preprocessing.of(model)
        config = load(AutoConfig.from_pretrained, model, what="config", trust_remote_code=trust_remote_code)
        if config.model_type != "clip":
            raise ConfigError("model", expected="a CLIP model for image-text", got=f"'{model}', a {config.model_type}")
        tokenizer: Any = load(
            AutoTokenizer.from_pretrained, model, what="tokenizer", trust_remote_code=trust_remote_code
        )
        self.backbone = load(CLIPModel.from_pretrained, model, what="weights", use_safetensors=True)
        if self.data.encoders == "vision":
            self.frozen = ("text_model", "text_projection", "logit_scale")
        length = self.backbone.config.text_config.max_position_embeddings
        texts = captions(self.data, self.label_names)
        self.prompts = dict(tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt"))

    def wrap(self, adapted: nn.Module, *, train_head: bool) -> nn.Module:
        """The adapted CLIP with its zero-shot head."""
        classes, text_trained = len(self.label_names), not self.frozen and not train_head
        return ZeroShotClassifier(adapted, self.prompts, classes, text_trained=text_trained, train_head=train_head)


def captions(data: ImageTextData, label_names: Sequence[str]) -> list[str]:
    """All templates of the first class, then of the second, and so on.

    Args:
        data: The data section of the config.
        label_names: Names of the classes, in the order of their numbers.

    Raises:
        DataError: `data.class_names` are not as many as the labels, not all different, or the labels themselves in
            another order.
    """
    plain = [name.replace("_", " ") for name in label_names]
    names = data.class_names or plain
    if len(names) != len(plain):
        raise DataError("data.class_names", expected=f"{len(plain)} names, one per label", got=str(len(names)))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError("data.class_names", expected="a name of its own for each label", got=f"'{twice}' twice")
    if sorted(names) in (sorted(plain), sorted(label_names)) and names not in (plain, list(label_names)):
        raise DataError(
            "data.class_names",
            expected=f"the order of the labels, {', '.join(label_names)}",
            got=", ".join(names),
            hint="these are the labels' own names, in another order",
        )
    return [template.replace("{}", name) for name in names for template in data.prompt_templates]
