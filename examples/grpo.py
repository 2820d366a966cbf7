"""Reinforcement learning with TRL's GRPO: completions are drawn from the adapted model and scored by a function.

python examples/grpo.py
"""

from pathlib import Path

from datasets import Dataset
from peft import PeftModel
from trl import GRPOConfig, GRPOTrainer

from randlora import RandLoraConfig
from tiny_models import QUICK, llama, tokenizer

base_model = llama  # AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct") for a real one


def share_of_cats(completions: list[str], **_: object) -> list[float]:
    """The reward: which part of a completion's words is "cat"."""
    return [text.split().count("cat") / max(len(text.split()), 1) for text in completions]


def main(output: str | Path = "grpo-adapter") -> PeftModel:
    """Train, and save the adapter to `output`."""
    trainer = GRPOTrainer(
        base_model(),
        reward_funcs=share_of_cats,
        args=GRPOConfig(
            output_dir=str(output),
            num_generations=8,
            max_completion_length=12,
            learning_rate=1e-2,
            **QUICK,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["the dog sees", "a bird likes"] * 8}),
        processing_class=tokenizer(),
        peft_config=RandLoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(output)  # PeftModel.from_pretrained(base_model(), output) reads it
    return trainer.model


if __name__ == "__main__":
    main()
