"""Tiny models and data, made on the spot: a BERT and a CLIP with random weights, texts and colour patches."""

import json
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from randlora.tasks import TASKS
from randlora.tasks.classification.labelled import Examples
from randlora.training import ImageTextData, MethodConfig, OptimizationConfig, SftData, TextData, TrainConfig, train
from randlora.training.methods import load_model
from randlora.training.run.trainer import RunTrainer

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "dark_blue": (20, 20, 120)}
WORDS = [
    "a",
    "photo",
    "of",
    "red",
    "green",
    "dark",
    "blue",
    "money",
    "card",
    "lost",
    "where",
    "is",
    "my",
    "please",
    "now",
    ".",
]

SIZES = {
    "vblora": {"vector_length": 4, "num_vectors": 16},
    "c3a": {"block_size": 4},
    "road": {"group_size": 8},
    "waveft": {"n_frequency": 20},
    "oft": {"oft_block_size": 4},
    "nola": {"num_bases": 8},
    "pranc": {"num_bases": 8},
    "fourierft": {"n_frequency": 20},
}
"""Method -> options of sizes that fit the layers of these models, of 16 and 32."""


def task_of(config, label_names):
    """The config's task with its model, for classes that are given."""
    task = TASKS[config.task](config.data, seed=config.seed, facts={"label_names": label_names})
    load_model(task, config)
    return task


@pytest.fixture
def interrupted(monkeypatch):
    """Train a config until a step is begun, and stop there as by Ctrl-C."""

    def run(config, step):
        ordinary = RunTrainer.training_step

        def stop(self, *args, **kwargs):
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return ordinary(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(RunTrainer, "training_step", stop)
            with pytest.raises(KeyboardInterrupt):
                train(config)

    return run


def dataset_of(task, split, inputs, labels, column="text"):
    """A split of a task from inputs that are given."""
    rows = datasets.Dataset.from_dict({column: inputs})
    task._splits[split] = Examples(rows, column, labels, "here")
    return task.dataset(split)


def save_tokenizer(folder: Path, size: int = 0) -> int:
    words = [*WORDS, *(f"word{number}" for number in range(size - len(WORDS) - 4))]
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<s>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(autouse=True, scope="session")
def datasets_cache(tmp_path_factory):
    """Keep the cache of `datasets` out of the user's home."""
    before, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, tmp_path_factory.mktemp("cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=save_tokenizer(folder),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


CHAT_TEMPLATE = (
    "{% for message in messages %}<s> {{ message['role'] }} : {{ message['content'] }} </s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s> assistant :{% endif %}"
)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """A decoder with a chat template, whose tokenizer knows single letters."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789 .,:?!'-\nABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))  # noqa: S106 - no secret
    tokenizer.decoder = decoders.Fuse()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE, **names)
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def conversations(tmp_path):
    """train.jsonl and test.jsonl: the assistant says the user's word twice."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 40), ("test", 8)):
        rows = []
        for _ in range(count):
            word = "".join(generator.choice(list("abcd"), size=3))
            turns = [{"role": "user", "content": word}, {"role": "assistant", "content": f"{word} {word}"}]
            rows.append(json.dumps({"messages": turns}))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def sft_config(llama, conversations, tmp_path):
    return TrainConfig(
        task="sft",
        model=str(llama),
        output=str(tmp_path / "run"),
        method=MethodConfig(r=4),
        data=SftData(train=str(conversations / "train.jsonl"), test=str(conversations / "test.jsonl"), max_length=64),
        optimization=OptimizationConfig(
            learning_rate=1e-2, epochs=2, batch_size=8, eval_batch_size=8, precision="fp32", device="cpu"
        ),
    )


@pytest.fixture(scope="session")
def spoken_run(llama, tmp_path_factory):
    """A finished run of sft, trained until answers differ between prompts and end by themselves."""
    folder = tmp_path_factory.mktemp("spoken")
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcd"), size=3)) for _ in range(40)]
    rows = [[{"role": "user", "content": word}, {"role": "assistant", "content": f"{word} {word}"}] for word in words]
    lines = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    config = TrainConfig(
        task="sft",
        model=str(llama),
        output=str(folder / "run"),
        method=MethodConfig(r=4),
        data=SftData(train=str(folder / "train.jsonl"), max_length=64, general=False),
        optimization=OptimizationConfig(learning_rate=1e-2, epochs=30, batch_size=8, precision="fp32", device="cpu"),
    )
    train(config)
    return folder / "run"


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": save_tokenizer(folder), "max_position_embeddings": 16, "eos_token_id": 3}
    config = CLIPConfig(
        text_config={**tower, **text},
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")
    return folder


@pytest.fixture
def texts(tmp_path):
    """train.csv and test.csv: the word "money" or "card" decides the intent."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 48), ("test", 16)):
        lines = ["text,label"]
        for row in range(count):
            word, label = (("money", "pay"), ("card", "lost_card"))[row % 2]
            rest = " ".join(generator.choice(["where", "is", "my", "please", "now"], size=3 + row % 4))
            lines.append(f"{rest} {word},{label}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def images(tmp_path):
    """Folders train/ and test/ with noisy patches of three colours."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for name, colour in COLOURS.items():
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.array(colour) + generator.normal(0, 20, (20, 24, 3)), 0, 255)
                PIL.Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path


@pytest.fixture
def text_config(bert, texts, tmp_path):
    return TrainConfig(
        task="text-classification",
        model=str(bert),
        output=str(tmp_path / "run"),
        method=MethodConfig(r=4),
        data=TextData(train=str(texts / "train.csv"), test=str(texts / "test.csv"), max_length=16),
        optimization=OptimizationConfig(
            learning_rate=1e-2, epochs=2, batch_size=8, eval_batch_size=8, precision="fp32", device="cpu"
        ),
    )


@pytest.fixture
def image_config(clip, images, tmp_path):
    return TrainConfig(
        task="image-text",
        model=str(clip),
        output=str(tmp_path / "run"),
        method=MethodConfig(r=4),
        data=ImageTextData(train=str(images / "train"), test=str(images / "test")),
        optimization=OptimizationConfig(
            learning_rate=1e-2, epochs=4, batch_size=8, eval_batch_size=8, precision="fp32", device="cpu"
        ),
    )
