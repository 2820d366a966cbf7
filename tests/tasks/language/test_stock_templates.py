"""Templates of well-known models, as TRL brings them: what is learned is what is said and an end, or an error."""

import json
import re
from importlib import util
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from randlora.errors import DataError
from randlora.tasks.language import Conversation, Loss, encode
from randlora.tasks.language.mixture import read_sources
from randlora.tasks.language.pool import mix
from randlora.tasks.language.questions import Asker, read_questions

PACKAGE = util.find_spec("trl")
FOLDER = Path(PACKAGE.submodule_search_locations[0]) / "chat_templates" if PACKAGE else Path("none")
SPECIAL = re.compile(r"<[|｜][^<>{}' ]*?[|｜]>|<(?:start|end)_of_(?:turn|utterance)>|<turn\|>|<\|turn>")
SAYS = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A first answer."},
    {"role": "user", "content": "And more"},
    {"role": "assistant", "content": "Another one, the second."},
]
WHOLE = ["chatml", "cohere", "cohere2", "gemma3", "glm4moe", "gptoss", "llama3", "llama3_2", "phi3", "qwen2_5"]
"""Of which every turn can be told."""

BY_TRL = ["deepseek_r1_distill", "deepseekv3", "nemotron_3_nano", "qwen3", "qwen3_5_think", "qwen3_6"]
"""Of which every turn can be told with the template that TRL trains such models with: they drop thoughts later."""


def read(path):
    template = path.read_text(encoding="utf-8")
    special = ["<bos>", "<eos>", "<pad>", *sorted(set(SPECIAL.findall(template)))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["assistant"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        eos_token=special[1],
        pad_token=special[2],
        extra_special_tokens=special[3:],
    )
    fast.chat_template = template
    return fast


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_stock_templates(learned, path, last_only, caplog):
    tokenizer = read(path)
    sample, refused = Conversation(SAYS), ""
    try:
        row = encode(tokenizer, [("here", sample)], loss=Loss(assistant_only_loss="last" if last_only else True)).rows[
            0
        ]
    except DataError as error:
        refused = str(error)
    if refused:
        assert path.stem not in WHOLE + BY_TRL
        assert re.match("here(, message [0-9])?: expected (a chat template|messages)", refused)
        return
    assert path.stem not in BY_TRL or last_only or "written by TRL's" in caplog.text
    spans = learned(tokenizer, row["input_ids"], row["labels"])
    answers = [message["content"] for message in SAYS[1::2]][-1 if last_only else 0 :]
    for span, answer in zip(spans, answers, strict=True):
        before, after = span.split(answer)
        assert (
            after in tokenizer.all_special_tokens
            or after == "<|end|>\n<eos>"
            or after.endswith("<|END_OF_TURN_TOKEN|>")
        )
        assert not any(message["content"] in before for message in SAYS)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_a_question_and_its_answer_are_what_is_trained(path, tmp_path):
    """Whatever a template writes before the answer: Qwen3's empty thoughts, the channel of gpt-oss."""
    tokenizer, answer = read(path), SAYS[1]["content"]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": SAYS[:2], "choices": [answer, "No."]}))
    (question,) = read_questions(mix(read_sources(str(tmp_path / "rows.jsonl")), wording=None)[0], choose=True)
    try:
        row = encode(tokenizer, [("here", question.sample)]).rows[0]
    except DataError:  # see above
        assert path.stem not in WHOLE + BY_TRL
        return
    asker = Asker(tokenizer)
    (prompt, said), (other, no) = asker.answered(question, question.choice.candidates)
    assert row["input_ids"][: len(prompt + said)] == prompt + said
    assert tokenizer.decode(said) == answer
    assert (other, tokenizer.decode(no)) == (prompt, "No.")
    assert asker.prompt(question) == prompt
