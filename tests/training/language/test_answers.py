"""Scores by answers: literal one-by-one computations without padding give the same, for any batch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from randlora.errors import ConfigError, DataError
from randlora.tasks.language.choices import Choice
from randlora.tasks.language.generation import complete
from randlora.tasks.language.likelihood import log_likelihoods
from randlora.tasks.language.metrics import choice_accuracy, exact_match
from randlora.tasks.language.questions import Asker, Question
from randlora.tasks.language.samples import Completion
from randlora.training import evaluate, train
from randlora.training.language import load_speaker

PROMPTS = ("abc", "dda", "a", "abca dd bca", "c", "cab", "abc abc abc abc")
ANSWERS = ("abc abc", "dda dda", "a", "b", "cc", "cab dab", "a b c d")


@pytest.fixture(scope="module")
def speaker(spoken_run):
    return load_speaker(str(spoken_run))


@pytest.fixture(scope="module")
def questions():
    pairs = zip(PROMPTS, ANSWERS, strict=True)
    return [
        Question("here", Completion(f"<s> user : {prompt} </s>\n<s> assistant :", f" {answer}"), f" {answer}")
        for prompt, answer in pairs
    ]


@torch.no_grad()
def spoken(speaker, prompt, room):
    """The likeliest token, again and again, without cache and padding."""
    ids = list(prompt)
    while len(ids) < len(prompt) + room:
        token = int(speaker.model(torch.tensor([ids])).logits[0, -1].argmax())
        if token == speaker.tokenizer.eos_token_id:
            break
        ids.append(token)
    return speaker.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


def literal_likelihood(speaker, prompt, answer):
    logits = speaker.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) + place - 1, token]) for place, token in enumerate(answer))


@torch.no_grad()
def test_answers_and_likelihoods_are_those_of_each_prompt_alone(speaker, questions):
    asker = Asker(speaker.tokenizer)
    prompts = [asker.prompt(question) for question in questions]
    assert len({len(ids) for ids in prompts}) > 3
    literal = [spoken(speaker, ids, 12) for ids in prompts]
    assert len(set(literal)) > 3
    pairs = [asker.answered(question, [question.answer])[0] for question in questions]
    likely = [literal_likelihood(speaker, *pair) for pair in pairs]
    for size in (1, 3, 7):
        rooms = [12] * len(prompts)
        assert complete(speaker.model, speaker.tokenizer, prompts, rooms, batch_size=size) == literal
        assert log_likelihoods(speaker.model, pairs, batch_size=size) == pytest.approx(likely, rel=1e-5)


@torch.no_grad()
def test_a_model_that_cannot_leave_logits_out_scores_the_same(speaker, questions, monkeypatch):
    asker = Asker(speaker.tokenizer)
    pairs = [asker.answered(question, [question.answer])[0] for question in questions]
    expected = log_likelihoods(speaker.model, pairs, batch_size=3)
    monkeypatch.setattr(speaker.model, "_supports_logits_to_keep", lambda: False)
    assert log_likelihoods(speaker.model, pairs, batch_size=3) == pytest.approx(expected, rel=1e-6)


@torch.no_grad()
def test_scores_count_what_the_literal_computation_finds(speaker, questions):
    asker = Asker(speaker.tokenizer)
    said = [spoken(speaker, asker.prompt(question), 40) for question in questions]
    asked = [replace(q, answer=f"  {said[n]}\n" if n % 3 else f"{said[n]} d") for n, q in enumerate(questions)]
    choosing = []
    by_sum = by_length = 0
    for number, question in enumerate(questions):
        candidates = (" d", question.answer, " abc abc abc")
        likely = [literal_likelihood(speaker, *pair) for pair in asker.answered(question, candidates)]
        right = number % 3
        by_sum += likely.index(max(likely)) == right
        shares = [value / len(text) for value, text in zip(likely, candidates, strict=True)]
        by_length += shares.index(max(shares)) == right
        choosing.append(replace(question, choice=Choice(candidates, right)))
    assert 0 < by_sum != by_length > 0
    for size in (1, 4):
        options = {"context": speaker.context, "batch_size": size}
        assert exact_match(speaker.model, speaker.tokenizer, asked, **options) == 4
        assert choice_accuracy(speaker.model, speaker.tokenizer, choosing, **options) == (by_sum, by_length)
    with pytest.raises(DataError, match="here: expected at most 30 tokens with each choice"):
        choice_accuracy(speaker.model, speaker.tokenizer, choosing, context=30, batch_size=2)


def test_an_answer_that_goes_on_behind_the_words_is_no_match(speaker, questions):
    said = spoken(speaker, Asker(speaker.tokenizer).prompt(questions[0]), 40)
    shorter = [replace(questions[0], answer=said[:-2])]
    options = {"context": speaker.context, "batch_size": 1}
    assert exact_match(speaker.model, speaker.tokenizer, shorter, **options) == 0
    told = {**options, "max_new_tokens": len(said) - 2}  # a token is a letter here
    assert exact_match(speaker.model, speaker.tokenizer, shorter, **told) == 1


@pytest.fixture
def chosen(sft_config):
    """The config, with both metrics and choices in every test example."""
    path = Path(sft_config.data.test)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        word = row["messages"][0]["content"]
        row["choices"] = ["zzz qqq", f"{word} {word}", "xxx yyy"]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sft_config.data.metrics = ["exact_match", "choice_accuracy"]
    return sft_config


@pytest.mark.slow
def test_a_run_records_its_answers_and_evaluates_to_them(chosen):
    chosen.optimization.epochs = 30
    record = train(chosen)
    names = ("exact_match", "choice_accuracy", "choice_accuracy_norm")
    for name in names:
        assert 0 <= record.metrics[f"test_{name}_before"] <= record.metrics[f"test_{name}"] <= 100
    assert record.metrics["test_choice_accuracy_before"] < 100 == record.metrics["test_choice_accuracy"]
    for size in ("1", "3"):
        found = evaluate(chosen.output, ["--optimization.eval_batch_size", size])
        assert [found[name] for name in names] == [record.metrics[f"test_{name}"] for name in names]


@pytest.mark.slow
def test_a_finished_run_is_asked_for_more_than_it_was_trained_with(sft_config):
    sft_config.optimization.max_steps = 1
    train(sft_config)
    assert "exact_match" not in evaluate(sft_config.output)
    assert evaluate(sft_config.output, ["--data.metrics", "[exact_match]"])["exact_match"] == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"metrics": ["choice_accuracy"], "choices": None}, DataError, "test.jsonl: line 1: expected two or more"),
        ({"metrics": ["choice_accuracy"], "choices": ["x", "y"]}, DataError, "ends with one of 'x', 'y'"),
        ({"metrics": ["bleu"]}, ConfigError, r"data\.metrics.*'exact_match'.*'choice_accuracy'"),
        ({"metrics": "exact_match"}, ConfigError, r"data\.metrics"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_training(sft_config, change, error, message):
    for key, value in change.items():
        setattr(sft_config.data, key, value)
    with pytest.raises(error, match=message) as caught:
        train(sft_config)
    assert "\n" not in str(caught.value)
    assert not Path(sft_config.output).exists()


def test_an_answer_behind_thoughts_is_refused_before_the_training(sft_config, tmp_path):
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.thoughts }}{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    (tmp_path / "template.jinja").write_text(template, encoding="utf-8")
    sft_config.data.chat_template_path = str(tmp_path / "template.jinja")
    sft_config.data.validation, sft_config.data.metrics = 2, ["exact_match"]  # of the training data, without thoughts
    path = Path(sft_config.data.test)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[-1]["messages"][-1]["thoughts"] = "so it is "
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match=rf"test\.jsonl: line {len(rows)}: expected an answer.*leave data\.metrics out"):
        train(sft_config)
    assert not list(Path(sft_config.output).rglob("checkpoint-*"))
