"""Supervised fine-tuning with TRL: a `RandLoraConfig` where a `LoraConfig` would be.

python examples/sft.py
"""

from pathlib import Path

from datasets import Dataset
from peft import PeftModel
from trl import SFTConfig, SFTTrainer

from randlora import RandLoraConfig
from tiny_models import QUICK, llama, tokenizer

base_model = llama  # AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B") for a real one


def main(output: str | Path = "sft-adapter") -> PeftModel:
    """Train, and save the adapter to `output`."""
    sentences = ["the cat sees a red bird", "the dog hears the cat", "a bird likes the blue dog"]
    trainer = SFTTrainer(
        base_model(),
        args=SFTConfig(
            output_dir=str(output),
            learning_rate=1e-2,  # of a size that LoRA takes too
            **QUICK,
        ),
        train_dataset=Dataset.from_dict({"text": sentences * 4}),
        processing_class=tokenizer(),
        peft_config=RandLoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(output)  # PeftModel.from_pretrained(base_model(), output) reads it
    return trainer.model


if __name__ == "__main__":
    main()
