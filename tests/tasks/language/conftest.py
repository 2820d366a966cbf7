"""A small byte-level tokenizer, and chat templates in the shapes of well-known models'."""

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "The capital of France is Paris, and the river there is the Seine.",
    "Answer the question with true or false: the sun is a star.",
    "user and assistant and system talk in turn;\n\n\n they think, and then they say: yes! no?",
    "Please write a function that adds two numbers.\n\n  def add(a, b):\n    return a + b\n",
]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|open|>", "<|close|>", "<|head|>", "<|tail|>"]

CHATML = (
    "{% for m in messages %}<|open|>{{ m['role'] }}\n{{ m['content'] }}<|close|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
)
CHATML_DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|open|>system\nBe kind.<|close|>\n{% endif %}" + CHATML
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|head|>{{ m['role'] }}<|tail|>\n\n{{ m['content'] | trim }}<|close|>"
    "{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|tail|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for m in messages %}<|open|>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ m['content'] | trim }}<|close|>\n{% endfor %}{% if add_generation_prompt %}<|open|>model\n{% endif %}"
)
CLOSED_BY_EOS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}[{{ m['content'] }}]{% endif %}{% endfor %}"
)
MARKED = (
    "{% for m in messages %}<|open|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}<|close|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
)
_FORGETS = (
    "{% for m in messages %}{% set said = m['content'] %}"
    "{% if not loop.last and m['role'] == 'assistant' and '</think>' in said %}"
    "{% set said = said.split('</think>')[-1] %}{% endif %}<|open|>{{ m['role'] }}\n%s<|close|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
)
FORGETS_THINKING = _FORGETS.replace("%s", "{{ said }}")
FORGETS_THINKING_MARKED = _FORGETS.replace(
    "%s",
    "{% if m['role'] == 'assistant' %}{% generation %}{{ said }}{% endgeneration %}{% else %}{{ said }}{% endif %}",
)
UNCLOSED = (
    "{% for m in messages %}{{ 'Q' if m['role'] == 'user' else 'A' }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}A: {% endif %}"
)

TEMPLATES = {
    "chatml": CHATML,
    "chatml with a default system": CHATML_DEFAULT_SYSTEM,
    "llama": LLAMA,
    "gemma": GEMMA,
    "closed by eos": CLOSED_BY_EOS,
    "marked": MARKED,
    "forgets thinking": FORGETS_THINKING,
    "forgets thinking, marked": FORGETS_THINKING_MARKED,
    "unclosed": UNCLOSED,
}
ENDS = {"closed by eos": "<eos>"}
TRIMS = {"llama", "gemma"}


@pytest.fixture(scope="session")
def backend():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 5, trainer)
    return tokenizer.to_str()


@pytest.fixture(scope="session")
def chats(backend):
    """`chats.make(template, bos=…, trim=…)` is a tokenizer; the others are facts about the templates."""

    def make(template=None, *, bos=False, trim=False, eos="<eos>"):
        tokenizer = Tokenizer.from_str(backend)
        parts = [processors.ByteLevel(trim_offsets=trim)]
        if bos:
            parts.append(processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)]))
        tokenizer.post_processor = processors.Sequence(parts)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=SPECIAL[1],
            eos_token=eos,
            pad_token=SPECIAL[0],
            extra_special_tokens=SPECIAL[3:],
        )
        fast.chat_template = TEMPLATES.get(template, template)
        return fast

    made = {name: make(name) for name in TEMPLATES}
    return SimpleNamespace(make=make, made=made, templates=TEMPLATES, ends=ENDS, trims=TRIMS, names=list(TEMPLATES))


@pytest.fixture(scope="session")
def learned():
    """The texts that a tokenized example's consecutive labels make."""

    def spans(tokenizer, ids, labels):
        runs, run = [], []
        for token, label in zip(ids, labels, strict=True):
            if label != -100:
                assert label == token
                run.append(token)
            elif run:
                runs.append(run)
                run = []
        return [tokenizer.decode(run) for run in [*runs, *([run] if run else [])]]

    return spans
