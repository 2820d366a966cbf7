"""The adapter in the tools that people train with: transformers' Trainer and TRL."""

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from networks import bert, llama, token_ids
from randlora import RandLoraConfig
from tiny import save_tokenizer

pytestmark = pytest.mark.slow


def test_trainer_trains_saves_and_resumes(tmp_path):
    torch.manual_seed(0)
    data = [{"input_ids": token_ids()[i % 2], "labels": i % 3} for i in range(24)]

    def trainer(output, steps):
        torch.manual_seed(0)
        model = peft.get_peft_model(bert(), RandLoraConfig(r=4, target_modules=["query", "dense"], task_type="SEQ_CLS"))
        arguments = TrainingArguments(
            output_dir=tmp_path / output,
            max_steps=steps,
            save_steps=3,
            learning_rate=1e-2,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            lr_scheduler_type="constant",
        )
        return Trainer(model, arguments, train_dataset=data)

    whole = trainer("whole", 6)
    whole.train()
    trainer("halves", 3).train()
    second = trainer("halves", 6)
    second.train(resume_from_checkpoint=True)
    name = "adapter_model.safetensors"
    expected = load_file(tmp_path / "whole" / "checkpoint-6" / name)
    resumed = load_file(tmp_path / "halves" / "checkpoint-6" / name)
    assert all(torch.equal(resumed[key], expected[key]) for key in expected)
    assert any(tensor.abs().sum() > 0 for key, tensor in expected.items() if key.endswith("gamma"))
    loaded = peft.PeftModel.from_pretrained(bert(), tmp_path / "whole" / "checkpoint-6")
    assert torch.equal(loaded(token_ids()).logits, whole.model.eval()(token_ids()).logits)


def test_trainer_resumes_and_takes_the_best_where_embeddings_and_biases_are_trained_too(tmp_path):
    llama().save_pretrained(tmp_path / "base")
    data = [{"input_ids": token_ids()[i % 2] + 3, "labels": token_ids()[i % 2] + 3} for i in range(8)]

    def train(output, steps, **resume):
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        base.resize_token_embeddings(55)
        config = RandLoraConfig(
            r=4,
            target_modules=["q_proj"],
            modules_to_save=["embed_tokens", "lm_head"],
            bias="all",
            task_type="CAUSAL_LM",
        )
        arguments = TrainingArguments(
            output_dir=tmp_path / output,
            max_steps=steps,
            save_steps=2,
            eval_steps=2,
            eval_strategy="steps",
            load_best_model_at_end=True,
            learning_rate=1e-2,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            lr_scheduler_type="constant",
        )
        trainer = Trainer(peft.get_peft_model(base, config), arguments, train_dataset=data, eval_dataset=data)
        trainer.train(**resume)
        assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{steps}")
        return trainer.model.eval()(token_ids()).logits

    whole = train("whole", 4)
    train("halves", 2)
    assert torch.equal(train("halves", 4, resume_from_checkpoint=True), whole)


def test_trls_sft_trainer(tmp_path):
    import datasets
    from trl import SFTConfig, SFTTrainer

    save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = datasets.Dataset.from_dict({"text": ["where is my red card please", "lost my money now"] * 8})
    arguments = SFTConfig(
        output_dir=tmp_path / "out",
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        max_length=16,
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        llama(),
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=RandLoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(llama(), tmp_path / "adapter")
    torch.testing.assert_close(loaded(token_ids()).logits, trainer.model.eval()(token_ids()).logits)
    assert (loaded(token_ids()).logits - llama()(token_ids()).logits).abs().max() > 1e-4
