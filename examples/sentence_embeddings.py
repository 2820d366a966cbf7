"""Embeddings with sentence-transformers: `add_adapter` takes a `RandLoraConfig`.

python examples/sentence_embeddings.py
"""

from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from randlora import RandLoraConfig
from tiny_models import QUICK, save_bert


def main(output: str | Path = "embeddings") -> SentenceTransformer:
    """Train, and save the adapter to `output`/adapted."""
    base = save_bert(Path(output) / "base")  # "sentence-transformers/all-MiniLM-L6-v2" for a real one
    model = SentenceTransformer(str(base), device="cpu")
    model.add_adapter(
        RandLoraConfig(
            r=4, target_modules=["query", "value", "intermediate.dense", "output.dense"], task_type="FEATURE_EXTRACTION"
        )
    )
    pairs = {
        "anchor": ["the cat sees a bird", "a dog hears", "the blue bird likes", "a red cat"],
        "positive": ["a cat sees", "the dog hears a bird", "a blue bird", "the cat likes red"],
    }
    trainer = SentenceTransformerTrainer(
        model,
        SentenceTransformerTrainingArguments(str(output), learning_rate=1e-2, **QUICK),
        train_dataset=Dataset.from_dict({name: column * 4 for name, column in pairs.items()}),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train()
    model.save_pretrained(str(Path(output) / "adapted"))  # SentenceTransformer(path) reads it, and the base
    return model


if __name__ == "__main__":
    main()
