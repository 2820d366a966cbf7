"""The commonsense suite on a run: what a literal evaluation of one question at a time finds, for any batch."""

import json
import re

import pytest
import torch
import transformers

from randlora.cli import main
from randlora.tasks.language.questions import Asker
from randlora.tasks.suites.commonsense import read_questions
from randlora.tasks.suites.commonsense_scores import score_task, work
from randlora.training import MethodConfig, OptimizationConfig, SftData, TrainConfig, train
from randlora.training.language import load_speaker

pytestmark = pytest.mark.slow

WORDS = ("cab", "a", "dad bad", "bee", "a big egg", "fade", "c", "ace of a gage")


def rows():
    """Words with a "b" are true."""
    asked = [f"Is {word} {word} b?\n\nAnswer format: true/false" for word in WORDS]
    answers = ["true" if "b" in word else "false" for word in WORDS]
    return [
        {"instruction": text, "input": "", "output": f"the correct answer is {answer}", "answer": answer}
        for text, answer in zip(asked, answers, strict=True)
    ]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    for task in ("boolq", "piqa"):
        (folder / task).mkdir()
    (folder / "boolq" / "test.json").write_text(json.dumps(rows()), encoding="utf-8")
    two = "Which?\n\nAnswer format: solution1/solution2"
    (folder / "piqa" / "test.json").write_text(json.dumps([{"instruction": two, "answer": "solution1"}]))
    (folder / "train.json").write_text(json.dumps(rows()), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(llama, suite, tmp_path_factory):
    """A run with LLM-Adapters' prompts, for which the tiny model needs more positions."""
    folder = tmp_path_factory.mktemp("adapters")
    model = transformers.LlamaForCausalLM.from_pretrained(llama)
    model.config.max_position_embeddings = 512
    model.save_pretrained(folder / "model")
    transformers.AutoTokenizer.from_pretrained(llama).save_pretrained(folder / "model")
    config = TrainConfig(
        task="sft",
        model=str(folder / "model"),
        output=str(folder / "run"),
        method=MethodConfig(name="full"),
        data=SftData(train=str(suite / "train.json"), wording="llm_adapters", general=False),
        optimization=OptimizationConfig(
            learning_rate=3e-3, epochs=60, batch_size=8, precision="fp32", device="cpu", scheduler="constant"
        ),
    )
    train(config)
    return folder / "run"


@pytest.fixture(scope="module")
def speaker(run):
    return load_speaker(str(run))


def asked(suite, protocol):
    return read_questions(suite, "boolq", protocol=protocol, wording="llm_adapters")


@torch.no_grad()
def beams(speaker, batch):
    found = speaker.model.generate(
        torch.tensor(batch),
        attention_mask=torch.ones(len(batch), len(batch[0]), dtype=torch.long),
        num_beams=4,
        do_sample=False,
        max_new_tokens=32,
    )
    return speaker.tokenizer.batch_decode(found[:, len(batch[0]) :], skip_special_tokens=True)


def right(answers):
    """The reference's count, in percent."""
    found = [re.findall("true|false", text)[:1] for text in answers]
    return 100 * sum(choice == [row["answer"]] for choice, row in zip(found, rows(), strict=True)) / len(answers)


@torch.no_grad()
def likeliest(speaker, questions):
    count = 0
    for question in questions:
        sums = []
        for text in question.choice.candidates:
            prompt, answer = Asker(speaker.tokenizer).answered(question, [text])[0]
            logits = speaker.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            sums.append(sum(float(logits[len(prompt) + place - 1, token]) for place, token in enumerate(answer)))
        count += sums.index(max(sums)) == question.choice.right
    return 100 * count / len(questions)


def score(speaker, questions, protocol, size):
    done = []
    options = {"protocol": protocol, "context": speaker.context, "batch_size": size, "advance": done.append}
    found = score_task(speaker.model, speaker.tokenizer, "boolq", questions, **options)
    assert sum(done) == work(questions)
    return found


def test_fixed_gives_what_each_question_gives_alone(speaker, suite):
    questions = asked(suite, "fixed")
    prompts = [Asker(speaker.tokenizer).prompt(question) for question in questions]
    assert len({len(ids) for ids in prompts}) > 4
    answers = [beams(speaker, [ids])[0] for ids in prompts]
    assert right(answers) > 0
    for size in (1, 3, 8):
        found = score(speaker, questions, "fixed", size)
        assert (found.generated, found.likelihood) == (right(answers), likeliest(speaker, questions))


def test_faithful_reads_its_padding_as_text(speaker, suite):
    questions = asked(suite, "faithful")
    prompts = [speaker.tokenizer(question.sample.prompt)["input_ids"] for question in questions]
    alone = [beams(speaker, [ids])[0] for ids in prompts]
    assert score(speaker, questions, "faithful", 1).generated == right(alone)
    longest = max(map(len, prompts))
    together = beams(speaker, [[0] * (longest - len(ids)) + ids for ids in prompts])
    assert together != alone
    assert score(speaker, questions, "faithful", 8).generated == right(together)


def test_the_command_line_prints_a_table_and_writes_it(run, suite, capsys):
    words = ["evaluate", str(run), "--commonsense", str(suite)]
    assert main(words) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines] == ["task", "─────", "boolq", "piqa", "mean", "protocol"]
    assert "27/27" in captured.err  # 9 answers in words, 18 choices
    content = json.loads((run / "commonsense-fixed.json").read_text(encoding="utf-8"))
    assert [task["task"] for task in content["tasks"]] == ["boolq", "piqa"]
    assert content["wording"] == "llm_adapters"
    means = [sum(task[name] for task in content["tasks"]) / 2 for name in ("generated", "likelihood")]
    assert [content["mean"][name] for name in ("generated", "likelihood")] == means
    assert main([*words, "--protocol", "faithful", "--tasks", "boolq", "--limit", "2", "--batch-size", "1"]) == 0
    content = json.loads((run / "commonsense-faithful.json").read_text(encoding="utf-8"))
    assert (content["tasks"][0]["examples"], content["mean"]["tasks"], content["batch_size"]) == (2, 1, 1)


def test_a_study_asks_its_runs_and_shows_their_answers(run, suite, tmp_path, capsys):
    data = {"train": str(suite / "train.json"), "test": str(suite / "train.json"), "wording": "llm_adapters"}
    content = {
        "name": "questions",
        "base": {
            "task": "sft",
            "model": str(run.parent / "model"),
            "data": {**data, "general": False},
            "optimization": {"max_steps": 2, "precision": "fp32", "device": "cpu"},
        },
        "tasks": {"eight": {}},
        "methods": {"lora": {"name": "lora", "r": 2}, "full": {"name": "full"}},
        "learning_rates": [1e-3],
        "score": {"commonsense": str(suite), "tasks": ["boolq", "piqa"]},
    }
    file = tmp_path / "suite.yaml"
    file.write_text(json.dumps(content), encoding="utf-8")
    words = ["study", "run", str(file), "--output", str(tmp_path / "study")]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "boolq eight (%)" in table
    assert "piqa eight (%)" in table
    assert "answers in words, protocol fixed" in table
    assert len(list(tmp_path.glob("study/runs/*/commonsense-fixed.json"))) == 2
    assert main([*words, "--score.commonsense", str(tmp_path)]) == 2
    assert "score: " in capsys.readouterr().err
