"""TRL's reference policy: a second adapter, filled by the names of the first one's parameters."""

import pytest
import torch

from every_method import adapted, fill
from networks import llama, rows, token_ids
from tiny import save_tokenizer


def copy_as_trl_does(model):
    model.add_adapter("ref", model.peft_config["default"])
    for name, parameter in model.named_parameters():
        if ".default." in name:
            model.get_parameter(name.replace(".default.", ".ref.")).data.copy_(parameter.data)


def test_every_trained_number_is_copied_by_its_name(method):
    model = adapted(method)
    expected = model(rows())
    copy_as_trl_does(model)
    model.set_adapter("ref")
    assert torch.equal(model(rows()), expected)
    fill(model, seed=6)
    assert not torch.equal(model(rows()), expected)
    model.set_adapter("default")
    assert torch.equal(model(rows()), expected)


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], "all-linear"])
def test_in_a_language_model_with_a_saved_head(method, targets):
    options = {"target_modules": targets, "modules_to_save": ["lm_head"], "task_type": "CAUSAL_LM"}
    model = adapted(method, llama(), **options)
    expected = model(token_ids()).logits
    copy_as_trl_does(model)
    model.set_adapter("ref")
    assert torch.equal(model(token_ids()).logits, expected)


@pytest.mark.slow
def test_dpo_of_a_trained_adapter_starts_at_the_logarithm_of_two(method, tmp_path):
    import datasets
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    save_tokenizer(tmp_path)
    pairs = {"prompt": ["where is my"] * 8, "chosen": ["red card"] * 8, "rejected": ["money lost now"] * 8}
    arguments = DPOConfig(
        output_dir=tmp_path / "out",
        max_steps=1,
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        logging_steps=1,
    )
    trainer = DPOTrainer(
        adapted(method, llama(), target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(pairs),
        processing_class=AutoTokenizer.from_pretrained(tmp_path),
    )
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(0.6931, abs=5e-5)
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5)
    assert first["rewards/rejected"] == pytest.approx(0, abs=1e-5)
    assert set(trainer.model.peft_config) == {"default", "ref"}
