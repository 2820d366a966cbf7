"""TRL's trainers take the tables as they are, packed or not, and compute the loss that a loop by hand computes."""

import json

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from randlora.tasks.language import statistics
from randlora.tasks.language.config import PreferenceData, SftData
from randlora.tasks.language.preference import PreferenceTask
from randlora.tasks.language.sft import Sft

trl = pytest.importorskip("trl")

SFT = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"{n} " * (n + 1)}]}
    for n in range(6)
]


@pytest.fixture
def model(chats):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=420, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0
    )
    return LlamaForCausalLM(config)


@pytest.fixture
def data(tmp_path):
    def write(rows):
        path = tmp_path / "data.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return str(path)

    return write


def mean_loss(model, rows):
    """Over all trained tokens of all examples, each alone."""
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            labels = torch.tensor(row["labels"][1:])
            total += F.cross_entropy(logits, labels, reduction="sum").item()
            count += int((labels != -100).sum())
    return total / count


@pytest.mark.parametrize("packing", [False, True])
def test_sft_takes_the_table(chats, model, data, tmp_path, packing):
    tokenizer = chats.make("chatml")
    task = Sft(SftData(train=data(SFT), validation=2, max_length=64), seed=0)
    task.tokenizer = tokenizer
    rows = list(task.dataset("train"))
    expected = mean_loss(model.eval(), rows)
    args = trl.SFTConfig(
        output_dir=str(tmp_path / "out"),
        max_length=64,
        packing=packing,
        eval_packing=False,
        per_device_train_batch_size=4,
        max_steps=1,
        learning_rate=0.0,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        logging_steps=1,
    )
    trainer = trl.SFTTrainer(
        model,
        args,
        train_dataset=task.dataset("train"),
        eval_dataset=task.dataset("validation"),
        processing_class=tokenizer,
    )
    taken = list(trainer.train_dataset)
    if packing:
        assert len(taken) < len(rows)
        assert sorted(length for row in taken for length in row["seq_lengths"]) == sorted(
            len(row["input_ids"]) for row in rows
        )
        assert (
            sum(label != -100 for row in taken for label in row["labels"]) == statistics(task.encoded("train")).trained
        )
    else:
        assert taken == rows
    trainer.train()
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(mean_loss(model, task.dataset("validation")), rel=1e-3)
    if packing:
        assert logged == pytest.approx(expected, rel=1e-3)


def test_dpo_takes_the_table_unprepared(chats, model, data, tmp_path):
    class Trainer(trl.DPOTrainer):
        def _prepare_dataset(self, dataset, *others):
            return dataset

    tokenizer = chats.make("chatml")
    rows = [
        {
            "prompt": f"What is {n}?",
            "chosen": [{"role": "assistant", "content": f"{n}"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for n in range(3)
    ]
    task = PreferenceTask(PreferenceData(train=data(rows), max_length=64), seed=0)
    task.tokenizer = tokenizer
    reference = LlamaForCausalLM(model.config)
    reference.load_state_dict(model.state_dict())
    args = trl.DPOConfig(
        output_dir=str(tmp_path / "out"),
        max_length=64,
        per_device_train_batch_size=3,
        max_steps=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        logging_steps=1,
    )
    trainer = Trainer(model, reference, args, train_dataset=task.dataset("train"), processing_class=tokenizer)
    assert list(trainer.train_dataset) == list(task.dataset("train"))
    trainer.train()
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert logged == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-3)
