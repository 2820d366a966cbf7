"""A text classifier over the mean of the tokens, the form in which sentence encoders were trained."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

HEAD_FILE = "head.safetensors"
"""Weight and bias of the head beside a merged encoder: logits = mean of the tokens · weightᵀ + bias."""


class MeanPoolingClassifier(PreTrainedModel):
    """An encoder, the mean of its last hidden states over the text's tokens, dropout and a linear layer.

    transformers' own classifiers read the first token through a pooler, which encoders trained with mean pooling
    (sentence-transformers' among them) never used.

    Args:
        config: The encoder's config, with `id2label`.
        encoder: The encoder; None builds one with random weights.
    """

    base_model_prefix = "encoder"
    # The encoder has checked its own attention; this class has none.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: PretrainedConfig, encoder: nn.Module | None = None) -> None:
        super().__init__(config)
        self.encoder: Any = AutoModel.from_config(config) if encoder is None else encoder
        self.dropout = nn.Dropout(getattr(config, "hidden_dropout_prob", 0.0))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels, dtype=self.encoder.dtype)
        nn.init.normal_(self.classifier.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.classifier.bias)

    def save_merged(self, folder: Path) -> None:
        """Write the encoder as transformers would, and the head beside it, as transformers has no class for both."""
        save_file(self.classifier.state_dict(), folder / HEAD_FILE)
        self.encoder.save_pretrained(folder)

    def load_head(self, folder: str) -> bool | None:
        """Take the head that lies in a folder, if it has as many classes; `id2label` in the config names its rows.

        Returns:
            Whether it was taken; None where there is no head.
        """
        path = Path(folder) / HEAD_FILE
        if not path.is_file():
            return None
        head = load_file(path)
        fits = head["weight"].shape == self.classifier.weight.shape
        if fits:
            self.classifier.load_state_dict(head)
        return fits

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """The encoder's."""
        self.encoder.gradient_checkpointing_enable(*args, **kwargs)

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """The encoder's, whose config is this one's too."""
        self.encoder.set_attn_implementation(*args, **kwargs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> SequenceClassifierOutput:
        """Classify texts.

        Args:
            input_ids: (batch, length).
            attention_mask: (batch, length), 0 at padding.
            inputs: What else the encoder takes.

        Returns:
            With logits (batch, classes).
        """
        inputs = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        # Summed in float32: in bf16 a text of 256 tokens would lose every second one.
        with torch.autocast(states.device.type, enabled=False):
            mean = (states * weights).float().sum(dim=1) / weights.float().sum(dim=1).clamp(min=1)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(mean.to(self.classifier.weight.dtype))))
