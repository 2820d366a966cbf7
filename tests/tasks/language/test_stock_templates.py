"""Templates of well-known models, as TRL brings them: what is learned is what is said and an end, or an error."""

import re
from importlib import util
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from randlora.errors import DataError
from randlora.tasks.language import Conversation, Loss, encode

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
"""Of which every turn can be told; of Qwen3's, which writes thoughts in the last turn only, that one."""


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
def test_stock_templates(learned, path, last_only):
    tokenizer = read(path)
    sample, refused = Conversation(SAYS), ""
    try:
        row = encode(tokenizer, [("here", sample)], loss=Loss(assistant_only_loss="last" if last_only else True)).rows[
            0
        ]
    except DataError as error:
        refused = str(error)
    if refused:
        assert path.stem not in WHOLE
        assert not (path.stem == "qwen3" and last_only)
        assert re.match("here(, message [0-9])?: expected (a chat template|messages)", refused)
        return
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
