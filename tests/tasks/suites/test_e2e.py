"""The E2E challenge: its form of data, references by meaning, and every metric against its definition, written out."""

import math
import shutil
from collections import Counter

import nltk
import pytest

from randlora.errors import DataError
from randlora.tasks.language.forms import normalise, recognise
from randlora.tasks.language.meanings import prompt_of_meaning
from randlora.tasks.suites.e2e import read_meanings
from randlora.tasks.suites.e2e_scores import METRICS, e2e_scores

ANSWERS = [
    "The Mill is a cheap pub by the river",
    "Aroma serves good Italian food",
    "a b c",
    "the cat the cat on the mat",
]
REFERENCES = [
    ["The Mill is a cheap pub by the river", "By the river there is a cheap pub"],
    ["Aroma serves Italian food in the centre", "Good Italian food is what Aroma serves", "Aroma has Italian food"],
    ["x y z"],
    ["the cat is on the mat", "there is a cat on the mat"],
]


@pytest.fixture
def without_java(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])


def of(answers, references):
    return {score.metric: score for score in e2e_scores(answers, references)}


def split(text):
    return text.lower().split()


def grams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def literal_bleu():
    hits, totals, length, nearest = [0] * 4, [0] * 4, 0, 0
    for answer, group in zip(
        map(split, ANSWERS), [[split(text) for text in group] for group in REFERENCES], strict=True
    ):
        length += len(answer)
        nearest += min((abs(len(text) - len(answer)), len(text)) for text in group)[1]
        for n in range(1, 5):
            most = Counter()
            for text in group:
                most |= grams(text, n)
            hits[n - 1] += sum((grams(answer, n) & most).values())
            totals[n - 1] += sum(grams(answer, n).values())
    mean = sum(math.log(hit / total) for hit, total in zip(hits, totals, strict=True)) / 4
    return 100 * math.exp(mean) * min(1.0, math.exp(1 - nearest / length))


def literal_rouge_l():
    def common(a, b):
        if not a or not b:
            return 0
        return common(a[1:], b[1:]) + 1 if a[0] == b[0] else max(common(a[1:], b), common(a, b[1:]))

    scores = []
    for answer, group in zip(map(split, ANSWERS), REFERENCES, strict=True):
        longest = [(common(answer, split(text)), len(split(text))) for text in group]
        precision = max(size / len(answer) for size, _ in longest)
        recall = max(size / count for size, count in longest)
        scores.append(2.44 * precision * recall / (recall + 1.44 * precision) if precision else 0.0)
    return 100 * sum(scores) / len(scores)


def literal_cider():
    count = Counter()
    for group in REFERENCES:
        count.update({gram for text in group for n in range(1, 5) for gram in grams(split(text), n)})

    def vector(words, n):
        return {gram: tf * (math.log(4) - math.log(max(1, count[gram]))) for gram, tf in grams(words, n).items()}

    def norm(found):
        return math.sqrt(sum(value**2 for value in found.values()))

    total = 0.0
    for answer, group in zip(map(split, ANSWERS), REFERENCES, strict=True):
        for text in map(split, group):
            # The lengths are those in pairs of words, as in the code that tables were made with.
            penalty = math.exp(-(((len(answer) - 1) - (len(text) - 1)) ** 2) / (2 * 36))
            for n in range(1, 5):
                a, b = vector(answer, n), vector(text, n)
                product = sum(min(a[gram], b.get(gram, 0.0)) * b.get(gram, 0.0) for gram in a)
                if norm(a) and norm(b):
                    total += 10 / 4 * penalty * product / (norm(a) * norm(b)) / len(group)
    return total / len(ANSWERS)


def literal_nist():
    words = [[split(text) for text in group] for group in REFERENCES]
    freq = Counter(gram for group in words for text in group for n in range(1, 6) for gram in grams(text, n).elements())
    size = sum(len(text) for group in words for text in group)
    total, ours, theirs = 0.0, 0, 0
    for n in range(1, 6):
        top, bottom = 0.0, 0
        for answer, group in zip(map(split, ANSWERS), words, strict=True):
            best = []
            for text in group:
                shared = grams(answer, n) & grams(text, n)
                weight = {gram: math.log2((freq[gram[:-1]] if n > 1 else size) / freq[gram]) for gram in shared}
                value = sum(weight[gram] * times for gram, times in shared.items())
                all_ = max(0, len(answer) - n + 1)
                best.append((value / all_ if all_ else 0, value, all_, len(text)))
            _, value, all_, length = max(best)
            top, bottom, theirs, ours = top + value, bottom + all_, theirs + length, ours + len(answer)
        total += top / bottom
    ratio = min(1.0, ours / theirs)
    return total * math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(ratio) ** 2)


def test_every_metric_is_its_definition(without_java):
    found = of(ANSWERS, REFERENCES)
    assert list(found) == ["BLEU", "NIST", "METEOR", "ROUGE-L", "CIDEr"]
    for name, literal in {
        "BLEU": literal_bleu,
        "NIST": literal_nist,
        "ROUGE-L": literal_rouge_l,
        "CIDEr": literal_cider,
    }.items():
        assert found[name].value == pytest.approx(literal(), rel=1e-6), name
        assert found[name].implementation.split()[0] in {"sacrebleu", "nltk", "pycocoevalcap"}
    assert found["NIST"].comparable.startswith("not comparable")
    assert found["METEOR"].value is None
    assert found["METEOR"].implementation == "needs Java, or nltk's data 'wordnet'"


def test_case_and_punctuation_do_not_count_where_the_official_scripts_leave_them_out(without_java):
    loud = of([f"{answer.upper()}!" for answer in ANSWERS], REFERENCES)
    plain = of(ANSWERS, REFERENCES)
    for name in ("ROUGE-L", "CIDEr"):
        assert loud[name].value == pytest.approx(plain[name].value)
    assert loud["BLEU"].value < plain["BLEU"].value
    assert of(REFERENCES[0][:1], REFERENCES[:1])["BLEU"].value == pytest.approx(100)


def test_the_metrics_are_named_in_their_order(without_java):
    assert [score.metric for score in e2e_scores(["A bar."], [["A bar."]])] == list(METRICS)


def test_empty_and_short_answers_have_scores_too(without_java):
    found = of(["", "x"], [["a b"], ["x", "y"]])
    assert found["NIST"].value is None
    assert "five words" in found["NIST"].implementation
    assert found["BLEU"].value == 0
    assert found["ROUGE-L"].value == pytest.approx(50)


JAVA = """#!/bin/sh
while read -r line; do
  case $line in
    "SCORE ||| the"*) echo 1 2 ;;
    EVAL*) echo 0.5; echo 0.25 ;;
  esac
done
"""


@pytest.mark.parametrize(("program", "value"), [(JAVA, 25.0), ("#!/bin/sh\nexit 1\n", None)])
def test_meteor_is_its_own_program_or_none(program, value, monkeypatch, tmp_path):
    (tmp_path / "java").write_text(program)
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(nltk.data, "path", [])
    meteor = of(ANSWERS[:1], [["The Mill"]])["METEOR"]
    assert meteor.value == value
    assert meteor.implementation.startswith("METEOR 1.5, pycocoevalcap" if value else "needs Java")


def test_meanings_become_prompts_and_texts_begin_with_a_blank():
    row = {"mr": "name[The Mill], customer rating[5 out of 5], familyFriendly[yes]", "ref": "The Mill is good."}
    form = recognise(row, "here")
    sample = normalise(row, form, "here")
    assert (form.name, sample.completion) == ("e2e", " The Mill is good.")
    assert sample.prompt == "name : The Mill | customer rating : 5 out of 5 | familyFriendly : yes ||"
    assert prompt_of_meaning("name[£20-25, or so]", "here") == "name : £20-25, or so ||"


@pytest.mark.parametrize("wrong", ["", "The Mill", "name[The Mill] area[x]", "name[a[b]]", "name[a], ,", None, 3])
def test_what_is_no_meaning_is_named_with_its_place(wrong):
    with pytest.raises(DataError, match=r"^f\.csv: row 4, column 'mr': expected"):
        prompt_of_meaning(wrong, "f.csv: row 4, column 'mr'")


def test_references_are_grouped_by_meaning_wherever_they_stand(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text('"mr","ref"\n"name[A]","first"\n"name[B]","b, it is"\n"name[A]","second"\n', encoding="utf-8")
    found = read_meanings(path)
    assert [meaning.references for meaning in found] == [("first", "second"), ("b, it is",)]
    assert found[1].question.sample.prompt == "name : B ||"
    assert len(read_meanings(path, limit=1)) == 1
    assert read_meanings(path, limit=1)[0].references == ("first", "second")
    for content, message in (
        ("mr,text\na,b\n", "columns 'mr' and 'ref'"),
        ("mr,ref\nname[A],\n", "row 0, column 'ref'"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_meanings(path)
