"""Preference tuning with TRL's DPO: the reference policy is the base model, with the adapter switched off.

python examples/dpo.py
"""

from pathlib import Path

from datasets import Dataset
from peft import PeftModel
from trl import DPOConfig, DPOTrainer

from randlora import RandLoraConfig
from tiny_models import QUICK, llama, tokenizer

base_model = llama  # AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct") for a real one


def main(output: str | Path = "dpo-adapter") -> PeftModel:
    """Train, and save the adapter to `output`."""
    preferences = {
        "prompt": ["the cat sees ", "a dog hears "],
        "chosen": ["a red bird", "the blue bird"],
        "rejected": ["a blue dog", "a blue cat"],
    }
    trainer = DPOTrainer(
        base_model(),
        args=DPOConfig(
            output_dir=str(output),
            learning_rate=1e-2,
            **QUICK,
        ),
        train_dataset=Dataset.from_dict({name: column * 4 for name, column in preferences.items()}),
        processing_class=tokenizer(),
        peft_config=RandLoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(output)  # PeftModel.from_pretrained(base_model(), output) reads it
    return trainer.model


if __name__ == "__main__":
    main()
