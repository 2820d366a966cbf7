"""Which head a text classifier starts with, and how much of a text it reads."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from randlora.errors import ConfigError
from randlora.tasks import TextData
from randlora.tasks.classification.text import TextClassification
from randlora.tasks.sources import BaseModel
from tiny import dataset_of, task_of


def pooled(config, pooling):
    return replace(config, data=replace(config.data, pooling=pooling))


@pytest.fixture(params=["model", "mean"])
def classifier(request, text_config, tmp_path):
    """Config of a model that has a head for two classes, and that head's weight."""
    task = task_of(pooled(text_config, request.param), ["pay", "lost"])
    folder = tmp_path / "classifier"
    folder.mkdir()
    (task.backbone.save_merged if request.param == "mean" else task.backbone.save_pretrained)(folder)
    task.tokenizer.save_pretrained(folder)
    return replace(pooled(text_config, request.param), model=str(folder)), task.backbone.classifier.weight


def said(task, caplog):
    """What the user is told when the task's training data are made."""
    caplog.clear()
    dataset_of(task, "test", ["my card", "money"], [0, 1])
    assert not caplog.messages
    dataset_of(task, "train", ["my card", "money"], [0, 1])
    return caplog.messages


def test_a_head_for_the_same_classes_is_kept_without_a_word(classifier, caplog):
    config, head = classifier
    task = task_of(config, ["pay", "lost"])
    assert torch.equal(task.backbone.classifier.weight, head)
    assert said(task, caplog) == []


def test_a_head_for_the_same_classes_in_another_order_is_put_in_the_datas(classifier, caplog):
    config, head = classifier
    task = task_of(config, ["lost", "pay"])
    assert torch.equal(task.backbone.classifier.weight, head.flip(0))
    assert task.backbone.config.id2label == {0: "lost", 1: "pay"}
    (message,) = said(task, caplog)
    assert "another order" in message


@pytest.mark.parametrize("names", [["lost", "paid"], ["a", "b", "c"]])
def test_a_head_for_other_classes_starts_anew(classifier, names, caplog):
    config, head = classifier
    torch.manual_seed(1)
    task = task_of(config, names)
    weight = task.backbone.classifier.weight
    assert weight.shape == (len(names), 16)
    assert not any(torch.equal(row, old) for row in weight for old in head)
    assert weight.std() > 0.005
    assert torch.count_nonzero(task.backbone.classifier.bias) == 0
    torch.manual_seed(1)
    assert torch.equal(task_of(config, names).backbone.classifier.weight, weight)
    (message,) = said(task, caplog)
    assert "the head starts anew" in message


def test_a_head_without_names_is_kept_and_said_so(classifier, caplog):
    config, head = classifier
    path = Path(config.model) / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in ("id2label", "label2id")}))
    task = task_of(config, ["no", "yes"])
    assert torch.equal(task.backbone.classifier.weight, head)
    (message,) = said(task, caplog)
    assert message == "the model's head has 2 classes without names; it is kept, for 'no', 'yes' in this order"


def test_a_fresh_head_needs_no_word(text_config, caplog):
    assert said(task_of(text_config, ["pay", "lost"]), caplog) == []


TINY = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DECODER = {"num_key_value_heads": 2, "max_position_embeddings": 32}
BART = {
    **{f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in (("layers", 1), ("ffn_dim", 16))},
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "d_model": 16,
    "vocab_size": 20,
    "max_position_embeddings": 32,
    "eos_token_id": 3,
    "pad_token_id": 0,
    "decoder_start_token_id": 3,
}
T5 = {"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "eos_token_id": 3}
ARCHITECTURES = {
    "bert": transformers.BertConfig(**TINY, max_position_embeddings=32),
    # The number of classes is the width, too: the layers before the last have as many rows.
    "roberta": transformers.RobertaConfig(**{**TINY, "hidden_size": 4}, max_position_embeddings=33, pad_token_id=0),
    "xlm-roberta": transformers.XLMRobertaConfig(**TINY, max_position_embeddings=34, pad_token_id=1),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=20, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=32
    ),
    "deberta": transformers.DebertaV2Config(**TINY, max_position_embeddings=32, relative_attention=True),
    "electra": transformers.ElectraConfig(**TINY, embedding_size=16, max_position_embeddings=32),
    "gpt2": transformers.GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=32),
    "llama": transformers.LlamaConfig(**TINY, **DECODER),
    "bloom": transformers.BloomConfig(vocab_size=20, hidden_size=16, n_layer=1, n_head=2),
    "xlnet": transformers.XLNetConfig(vocab_size=20, d_model=16, n_layer=1, n_head=2, d_inner=16),
    "modernbert": transformers.ModernBertConfig(**TINY, max_position_embeddings=32, pad_token_id=0),
    "bart": transformers.BartConfig(**BART),
    "t5": transformers.T5Config(**T5, decoder_start_token_id=0),
}
LONGEST = dict.fromkeys(("bloom", "xlnet", "t5"), 48)
"""What the tokenizer allows, for positions without an end; the others have 32."""


@pytest.fixture
def opened(bert, tmp_path):
    """Write a model of an architecture beside a tokenizer, with a head for four classes; open it as a task."""

    def open_task(name, names, **data):
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(bert, folder)
            path = folder / "tokenizer_config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 48}))
            config = copy.deepcopy(ARCHITECTURES[name])
            config.id2label = dict(enumerate(["d", "b", "c", "a"]))
            torch.manual_seed(0)
            model = transformers.AutoModelForSequenceClassification.from_config(config)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
            model.save_pretrained(folder)
        task = TextClassification(TextData(**data), seed=0, facts={"label_names": names})
        task.load_model(BaseModel(str(folder)))
        return task

    return open_task


def logits(task, text="lost my card"):
    data = dataset_of(task, "train", [text], [0])
    batch = task.collate([data[0]])
    del batch["labels"]
    with torch.no_grad():
        return task.backbone.eval()(**batch).logits, batch["input_ids"].shape[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_head_of_every_architecture_follows_the_names(opened, architecture, caplog):
    before, _ = logits(opened(architecture, ["d", "b", "c", "a"]))
    assert not any("head" in message for message in caplog.messages)
    after, _ = logits(opened(architecture, ["a", "b", "c", "d"]))
    torch.testing.assert_close(after, before[:, [3, 1, 2, 0]])
    fresh, _ = logits(opened(architecture, ["a", "b", "c", "e"]))
    assert not torch.isclose(fresh, after).any()
    assert sum("starts anew" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_texts_longer_than_the_models_positions_are_cut_and_said_so(opened, architecture, caplog):
    task = opened(architecture, ["d", "b", "c", "a"])
    longest = LONGEST.get(architecture, 32)
    assert task.max_length == longest
    for _ in range(2):  # and said once
        values, length = logits(task, "card " * 500)
    message = f"data.max_length: 128 is more than the model reads; texts end at token {longest}"
    assert caplog.messages.count(message) == 1
    assert length == longest
    assert torch.isfinite(values).all()
    caplog.clear()
    assert logits(opened(architecture, ["d", "b", "c", "a"], max_length=8), "card " * 500)[1] == 8
    assert not caplog.messages


@pytest.mark.parametrize("length", [1, 2])
def test_a_length_that_leaves_no_room_for_the_text_is_refused(text_config, length):
    text_config.data.max_length = length
    with pytest.raises(ConfigError, match=r"data\.max_length: expected more than the 2 tokens around each text, got"):
        task_of(text_config, ["a", "b"])


def test_weights_that_contradict_the_config_are_refused(classifier, tmp_path):
    path = tmp_path / "classifier" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 30}))
    with pytest.raises(
        ConfigError, match=r"^model: expected weights of the shapes .* another shape of \S*intermediate"
    ):
        task_of(classifier[0], ["a", "b"])


def test_a_damaged_head_is_refused(text_config, bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "merged")
    (folder / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"^model: expected a model whose head can be loaded"):
        task_of(replace(pooled(text_config, "mean"), model=str(folder)), ["a", "b"])
