"""A tiny GPT-2 learns the E2E challenge with the LoRA paper's recipe, and says meanings by beam search."""

import json
from dataclasses import replace

import pytest
import torch
import transformers

from randlora.cli import main
from randlora.tasks import TASKS
from randlora.tasks.suites.e2e import DECODING
from randlora.training import MethodConfig, OptimizationConfig, SftData, TrainConfig, train
from randlora.training.language import load_speaker
from randlora.training.methods import build, load_model
from randlora.training.run.arguments import training_arguments
from randlora.training.run.trainer import run_trainer

NAMES = ("Aroma", "The Mill", "Wild Pig", "Cotto")
FOODS = ("Italian", "French")


def rows():
    for name in NAMES:
        for food in FOODS:
            meaning = f'"name[{name}], food[{food}]"'
            yield f"{meaning},{name} has {food} food."
            yield f"{meaning},At {name} they eat {food}."


@pytest.fixture(scope="module")
def gpt2(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    tokenizer.add_tokens(["|", "[", "]", "ö"])
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=2, n_positions=160, bos_token_id=2, eos_token_id=3
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def config(gpt2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("e2e")
    (folder / "train.csv").write_text("\n".join(["mr,ref", *rows()]) + "\n", encoding="utf-8")
    return TrainConfig(
        task="sft",
        model=str(gpt2),
        output=str(folder / "run"),
        method=MethodConfig(name="lora", r=8),
        data=SftData(train=str(folder / "train.csv"), label_smoothing_factor=0.1, general=False),
        optimization=OptimizationConfig(
            learning_rate=1e-2, epochs=8, batch_size=8, precision="fp32", device="cpu", gradient_accumulation_steps=2
        ),
    )


def trainer_of(config):
    task = TASKS[config.task](config.data, seed=0)
    load_model(task, config)
    model = build(task, config.method)
    arguments = training_arguments(config, task, config.output + "-scratch")
    trainer = run_trainer(task.trainer_classes()[0])(
        model=model, args=arguments, train_dataset=task.dataset("train"), **task.inputs()
    )
    return task, trainer


def test_the_smoothed_loss_is_the_lora_papers(config):
    task, trainer = trainer_of(config)
    trainer.adalora = None
    batch = trainer.data_collator([task.dataset("train")[place] for place in range(3)])
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    total, count = 0.0, 0
    for scores, labels in zip(logits[:, :-1].log_softmax(-1), batch["labels"][:, 1:], strict=True):
        for row, label in zip(scores, labels, strict=True):
            if label != -100:
                total += -0.9 * float(row[label]) - 0.1 * float(row.mean())
                count += 1
    assert count > 50
    trainer.model.train()
    for layer in trainer.model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(100))
    assert float(loss) == pytest.approx(total / 100, rel=1e-4)


def test_only_the_text_is_learned_and_gpt2s_layers_are_adapted(config):
    task = TASKS["sft"](config.data, seed=0)
    load_model(task, config)
    row = task.dataset("train")[0]
    learned = task.tokenizer.decode([token for token in row["labels"] if token != -100])
    assert learned == " Aroma has Italian food.</s>"
    for name in ("lora", "randlora"):
        load_model(task, config)
        model = build(task, replace(config.method, name=name, r=4))
        adapted = {key.split(".")[-1] for key, layer in model.named_modules() if hasattr(layer, "base_layer")}
        assert adapted == {"c_attn", "c_proj", "c_fc"}, name


@pytest.mark.slow
def test_a_run_is_scored_by_the_command_line(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)  # METEOR's start takes seconds, and has a test of its own
    train(config)
    words = ["evaluate", config.output, "--e2e", config.data.train]
    assert main([*words, "--limit", "3", "--batch-size", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:7]] == ["metric", "─" * 7, "BLEU", "NIST", "METEOR", "ROUGE-L", "CIDEr"]
    content = json.loads((tmp_path / config.output / "e2e.json").read_text(encoding="utf-8"))
    assert (content["meanings"], content["num_beams"], content["length_penalty"]) == (3, 10, 0.8)
    speaker = load_speaker(config.output)
    prompt = speaker.tokenizer("name : Aroma | food : Italian ||", return_tensors="pt", return_token_type_ids=False)
    found = speaker.model.generate(**prompt, max_new_tokens=64, do_sample=False, **DECODING)
    text = speaker.tokenizer.decode(found[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert content["answers"][0] == text.strip()
    assert main([*words, "--harness", "x"]) == 2
    assert "one suite at a time, got --e2e and --harness" in capsys.readouterr().err
    assert main([*words, "--protocol", "fixed"]) == 2
