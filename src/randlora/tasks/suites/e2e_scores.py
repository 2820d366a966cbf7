"""The five metrics of the E2E challenge, by kept libraries, each with what its figure can be compared with."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

METRICS = {"BLEU": "%", "NIST": "points", "METEOR": "%", "ROUGE-L": "%", "CIDEr": "points"}
"""The metrics, in the order of `e2e_scores`, and their units."""

_PUNCTUATION = frozenset(["''", "'", "``", "`", "(", ")", "{", "}", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""What the official scripts leave out before ROUGE-L, CIDEr and METEOR."""

_WORDS = "comparable up to the tokens: Treebank's, where the official scripts have Stanford's"


@dataclass(frozen=True)
class E2eScore:
    """A figure.

    Attributes:
        metric: Its name.
        value: The figure; BLEU, ROUGE-L and METEOR in percent. None where it cannot be had here.
        implementation: What computed it, or why there is none.
        comparable: Whether it can stand beside figures of the official scripts.
    """

    metric: str
    value: float | None
    implementation: str
    comparable: str


def e2e_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[E2eScore]:
    """Score answers against the references of their meanings.

    Args:
        answers: One for each meaning.
        references: Those of each meaning, one or more.
    """
    texts = {str(place): [_words(text) for text in group] for place, group in enumerate(references)}
    said = {str(place): [_words(answer)] for place, answer in enumerate(answers)}
    return [
        _bleu(answers, references),
        _nist(answers, references),
        _meteor(texts, said),
        _rouge_l(texts, said),
        _cider(texts, said),
    ]


def _bleu(answers: Sequence[str], references: Sequence[Sequence[str]]) -> E2eScore:
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - optional packages, here and below

    most = max(map(len, references))
    columns = [[group[place] if place < len(group) else None for group in references] for place in range(most)]
    metric = BLEU(lowercase=True, tokenize="13a", smooth_method="none", force=True)
    value = float(metric.corpus_score(list(answers), columns).score)
    about = "comparable: mteval-13a's tokens without case, the nearest reference's length, no smoothing"
    return E2eScore("BLEU", value, f"sacrebleu {version('sacrebleu')}", about)


def _nist(answers: Sequence[str], references: Sequence[Sequence[str]]) -> E2eScore:
    from nltk.translate.nist_score import corpus_nist  # noqa: PLC0415
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a  # noqa: PLC0415

    split = Tokenizer13a()
    tokens = [split(answer.lower()).split() for answer in answers]
    groups = [[split(text.lower()).split() for text in group] for group in references]
    name = f"nltk {version('nltk')}"
    # It divides by the number of 5-grams of the answers.
    value = float(corpus_nist(groups, tokens)) if any(len(words) >= 5 for words in tokens) else None
    about = "not comparable: each n-gram counts against the best single reference, not against all together"
    return E2eScore("NIST", value, name if value is not None else f"{name} asks for an answer of five words", about)


def _meteor(texts: dict[str, list[str]], said: dict[str, list[str]]) -> E2eScore:
    if shutil.which("java") is not None:
        from pycocoevalcap.meteor.meteor import Meteor  # noqa: PLC0415

        meteor = Meteor()
        try:
            value, _ = meteor.compute_score(texts, said)
            return E2eScore("METEOR", 100 * float(value), f"METEOR 1.5, {_coco()}", _WORDS)
        except (OSError, ValueError):  # a Java that does not start, or has not the two gigabytes that it asks for
            meteor.lock.release()  # its end would wait for this for ever
    from nltk.translate.meteor_score import meteor_score  # noqa: PLC0415

    try:
        scores = [meteor_score([text.split() for text in texts[key]], said[key][0].split()) for key in texts]
    except LookupError:
        why = "needs Java, or nltk's data 'wordnet'"
        return E2eScore("METEOR", None, why, "")
    about = "not comparable: without METEOR 1.5's paraphrases and tuned weights"
    return E2eScore("METEOR", 100 * sum(scores) / len(scores), f"nltk {version('nltk')}", about)


def _rouge_l(texts: dict[str, list[str]], said: dict[str, list[str]]) -> E2eScore:
    from pycocoevalcap.rouge.rouge import Rouge  # noqa: PLC0415

    return E2eScore("ROUGE-L", 100 * float(Rouge().compute_score(texts, said)[0]), _coco(), _WORDS)


def _cider(texts: dict[str, list[str]], said: dict[str, list[str]]) -> E2eScore:
    from pycocoevalcap.cider.cider import Cider  # noqa: PLC0415

    return E2eScore("CIDEr", float(Cider().compute_score(texts, said)[0]), _coco(), _WORDS)


def _coco() -> str:
    return f"pycocoevalcap {version('pycocoevalcap')}"


def _words(text: str) -> str:
    """A text's words, small and without punctuation, with blanks between them."""
    from nltk.tokenize.destructive import NLTKWordTokenizer  # noqa: PLC0415

    tokens: Any = NLTKWordTokenizer().tokenize(text.lower())
    return " ".join(token for token in tokens if token not in _PUNCTUATION)
