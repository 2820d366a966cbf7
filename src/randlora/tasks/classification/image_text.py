"""Image classification with CLIP: class names in prompts make a zero-shot head, which training improves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoTokenizer, CLIPModel, Trainer

from randlora.errors import ConfigError, DataError
from randlora.methods.prompts.config import PromptConfig
from randlora.methods.prompts.prompts import Prompts
from randlora.methods.prompts.promptsrc import PromptSRCPrompts
from randlora.methods.prompts.tokens import class_tokens, numbers, words_of
from randlora.methods.prompts.tuner import prompts_of
from randlora.tasks.classification.captions import captions, names_of
from randlora.tasks.classification.config import ImageTextData
from randlora.tasks.classification.feature_cache import CachedFeatures
from randlora.tasks.classification.image_task import ImageTask
from randlora.tasks.classification.images import ImageRows
from randlora.tasks.classification.labelled import Examples
from randlora.tasks.classification.preprocessing import Preprocessing
from randlora.tasks.classification.prompted import PromptClassifier
from randlora.tasks.classification.zero_shot import ZeroShotClassifier, caption_features
from randlora.tasks.sources import BaseModel, load
from randlora.tasks.suites.registry import made_up_classes
from randlora.tasks.task import Split, scores_on


class ImageText(ImageTask):
    """CLIP with prompts as its classifier."""

    data_class = ImageTextData
    trained_head = False
    head = ("head",)
    data: ImageTextData
    classifier: ZeroShotClassifier | PromptClassifier | None = None

    def __init__(self, data: ImageTextData, *, seed: int, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, seed=seed, facts=facts)
        self._features: dict[tuple[Split, range], CachedFeatures] = {}

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
    def check_method(cls, data: Any, config: Any) -> None:
        """See `Task.check_method`; prompts are captions, and those of each class leave new classes without."""
        if not isinstance(config, PromptConfig):
            return
        if data.encoders != "both":
            hint = "both towers are frozen, and captions are of the text tower"
            raise ConfigError("data.encoders", expected="both, with prompts", got=data.encoders, hint=hint)
        if config.by_class and data.classes != "all":
            hint = "new classes would have no context"
            raise ConfigError("data.classes", expected="all, with class_specific", got=data.classes, hint=hint)

    @classmethod
    def without_data(cls, data: Any) -> "ImageText":
        """See `Task.without_data`: the classes that have names, as many as the suite has, or as few as there can be."""
        made_up = made_up_classes(data.suite)
        few = made_up if data.classes == "all" or len(made_up) > 3 else ["0", "1", "2", "3"]
        return cls(data, seed=0, facts={"label_names": data.class_names or few})

    @property
    def trained(self) -> int:
        """How many classes are trained on, the first ones."""
        return self.data.trained_classes(len(self.label_names))

    def classes(self) -> list[str]:
        """See `Task.classes`: the names in the captions."""
        return names_of(self.data, self.label_names)

    def load_model(self, base: BaseModel) -> None:
        """See `Task.load_model`: a `CLIPModel`, in float32 whatever its file has."""
        model, trust_remote_code = base.name, base.trust_remote_code
        config = load(AutoConfig.from_pretrained, model, what="config", trust_remote_code=trust_remote_code)
        if config.model_type != "clip":
            expected = "a CLIP model for image-text, with a text and a vision tower"
            raise ConfigError("model", expected=expected, got=f"'{model}', a {config.model_type}")
        self.preprocessing = Preprocessing.of(model)
        tokenizer: Any = load(
            AutoTokenizer.from_pretrained, model, what="tokenizer", trust_remote_code=trust_remote_code
        )
        self.backbone = load(
            CLIPModel.from_pretrained, model, what="weights", use_safetensors=True, dtype=torch.float32
        )
        if self.data.encoders == "vision":
            self.frozen = ("text_model", "text_projection", "logit_scale")
        self.tokenizer = tokenizer
        self.longest = self.backbone.config.text_config.max_position_embeddings
        texts = captions(self.data, self.label_names)
        options = {"padding": True, "truncation": True, "max_length": self.longest, "return_tensors": "pt"}
        self.prompts = dict(tokenizer(texts, **options))

    def settle(self, config: PromptConfig) -> None:
        """See `Task.settle`."""
        config.settle(self.trained, numbers(self.tokenizer, config.words or ""))

    def wrap(self, adapted: nn.Module, *, train_head: bool) -> nn.Module:
        """The adapted CLIP with its zero-shot head, or with the captions of its prompts.

        Raises:
            ConfigError: A head, or prompts, of the trained classes alone cannot have others.
            DataError: A class name is longer than the context leaves room for.
        """
        classes, trained = len(self.label_names), self.trained
        prompts = prompts_of(adapted)
        if prompts is not None:
            self.classifier = self._prompted(adapted, prompts)
            return self.classifier
        if train_head and trained < classes:
            hint = "new classes have no row in the trained head"
            raise ConfigError("data.classes", expected="all, with method head", got=self.data.classes, hint=hint)
        text_trained = not self.frozen and not train_head
        self.classifier = ZeroShotClassifier(
            adapted, self.prompts, classes, text_trained=text_trained, train_head=train_head, trained=trained
        )
        return self.classifier

    def _prompted(self, adapted: Any, prompts: Prompts) -> PromptClassifier:
        config, trained = adapted.peft_config["default"], self.trained
        self.check_method(self.data, config)
        if config.classes != trained and (config.by_class or (config.transfer and not self.foreign)):
            got = f"{trained} with data.classes {self.data.classes}"
            raise ConfigError("data.classes", expected=f"the {config.classes} classes of the training", got=got)
        names = self.classes()
        words = words_of(self.tokenizer, names, config.behind)
        tokens = class_tokens(words, names, config.length, self.longest, prompts.position)
        frozen = None
        if isinstance(prompts, PromptSRCPrompts):
            adapted.eval()
            with torch.no_grad():
                means = caption_features(self.backbone, self.prompts, len(names), range(trained)).mean(dim=1)
            frozen = nn.functional.normalize(means.float(), dim=-1)
        return PromptClassifier(adapted, tokens, trained, frozen, foreign=self.foreign)

    def inputs(self) -> dict[str, Any]:
        """See `Task.inputs`; a prompt method may have a loss of its own."""
        found = super().inputs()
        if isinstance(self.classifier, PromptClassifier):
            found["compute_loss_func"] = self.classifier.loss
        return found

    def examples(self, split: Split) -> Examples:
        """See `Classification.examples`; test data have rows of base and new classes.

        Raises:
            DataError: They have not.
        """
        known, found = split in self._splits, super().examples(split)
        if not known and split == "test" and self.trained < len(self.label_names):
            for kind, there in (("base", min(found.labels) < self.trained), ("new", max(found.labels) >= self.trained)):
                if not there:
                    hint = f"the first {self.trained} of {len(self.label_names)} classes are base classes"
                    raise DataError(found.source, expected=f"rows of the {kind} classes", got="none", hint=hint)
        return found

    def look(self, split: Split) -> None:
        """See `Task.look`; the classes must have names."""
        super().look(split)
        self.classes()

    def dataset(self, split: Split) -> Dataset[dict[str, Any]]:
        """The images of the classes trained on; their features where a frozen tower sees the same in every epoch."""
        return self._dataset(split, range(self.trained))

    def _dataset(self, split: Split, classes: range) -> Dataset[dict[str, Any]]:
        if (split, classes) in self._features:
            return self._features[split, classes]
        found = self.examples(split)
        if len(classes) < len(self.label_names):
            rows = [row for row, label in enumerate(found.labels) if label in classes]
            if not rows:
                raise DataError(found.source, expected="rows of the classes that are trained on", got="none")
            found = found.select(rows)
            found = replace(found, labels=[label - classes.start for label in found.labels])
        augment = split == "train" and self.data.augment
        images = ImageRows(found, self.preprocessing, self.seed if augment else None)
        if augment or not isinstance(self.classifier, PromptClassifier) or not self.classifier.sees_frozen_images:
            return images
        width = self.backbone.config.projection_dim
        if not CachedFeatures.fits(images, width):
            return images
        self._features[split, classes] = CachedFeatures(images, self.classifier.encode, width)
        return self._features[split, classes]

    def score(self, trainer: Trainer, split: Split) -> dict[str, float]:
        """See `Task.score`; of base classes the test data's new ones are scored too, among themselves."""
        scores = super().score(trainer, split)
        classes = len(self.label_names)
        if split != "test" or self.trained == classes or self.classifier is None:
            return scores
        new = range(self.trained, classes)
        self.classifier.show(new)
        try:
            others = scores_on(trainer, self._dataset(split, new), "new")
        finally:
            self.classifier.show(range(self.trained))
        base, unseen = scores["accuracy"], others["accuracy"]
        mean = 2 * base * unseen / (base + unseen) if base + unseen else 0.0
        return {**scores, "accuracy_new": unseen, "harmonic_mean": mean}
