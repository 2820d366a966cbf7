"""What is learned is what the assistant says and what ends its turn, to the character, whatever the template does."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from randlora.errors import ConfigError, DataError
from randlora.tasks.language import Completion, Conversation, Loss, Text, encode

# Special tokens are written with these; what a user writes with them is the tokenizer's affair.
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<>"), min_size=1, max_size=12)
SAID = WORDS.filter(lambda text: text.strip() == text and text)
LOOSE = WORDS.filter(str.strip)
STABLE = ["chatml", "chatml with a default system", "llama", "gemma", "closed by eos", "marked"]


def talk(pairs, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    for asked, answered in pairs:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return messages


def encode_one(tokenizer, sample, **options):
    row = encode(tokenizer, [("here", sample)], **options).rows[0]
    assert row["labels"][0] == -100
    assert len(row["input_ids"]) == len(row["labels"])
    return row["input_ids"], row["labels"]


@pytest.mark.parametrize("name", STABLE)
@given(pairs=st.lists(st.tuples(LOOSE, LOOSE), min_size=1, max_size=4), system=st.none() | SAID, trim=st.booleans())
def test_spans_are_the_answers_with_their_ends(chats, learned, name, pairs, system, trim):
    tokenizer = chats.make(name, trim=trim)
    conversation = Conversation(talk(pairs, None if name == "gemma" else system))
    ids, labels = encode_one(tokenizer, conversation)
    end = chats.ends.get(name, "<|close|>")
    lead = " " if name == "closed by eos" else ""
    answers = [answer.strip() if name in chats.trims else answer for _, answer in pairs]
    assert learned(tokenizer, ids, labels) == [f"{lead}{answer}{end}" for answer in answers]
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(conversation.messages, tokenize=False)


@pytest.mark.parametrize("name", STABLE)
@given(pairs=st.lists(st.tuples(SAID, SAID), min_size=1, max_size=3))
def test_what_precedes_an_answer_is_tokenized_as_at_inference(chats, name, pairs):
    tokenizer = chats.made[name]
    messages = talk(pairs)
    ids, labels = encode_one(tokenizer, Conversation(messages), loss=Loss(assistant_only_loss="last"))
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=True, return_dict=False)
    first = next(place for place, label in enumerate(labels) if label != -100)
    assert ids[:first] == prompt


@given(data=st.data(), pairs=st.lists(st.tuples(SAID, SAID), min_size=1, max_size=4), which=st.sampled_from(STABLE))
def test_turns_without_weight_are_read_and_not_learned(chats, learned, data, pairs, which):
    tokenizer, messages = chats.made[which], talk(pairs)
    weights = data.draw(st.lists(st.sampled_from([0, 1, None]), min_size=len(pairs), max_size=len(pairs)))
    assume(set(weights) != {0})
    for place, weight in enumerate(weights):
        messages[2 * place + 1] |= {} if weight is None else {"weight": weight}
    ids, labels = encode_one(tokenizer, Conversation(messages))
    answers = [answer for (_, answer), weight in zip(pairs, weights, strict=True) if weight != 0]
    assert [span.strip() for span in learned(tokenizer, ids, labels)] == [
        answer + chats.ends.get(which, "<|close|>") for answer in answers
    ]
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(talk(pairs), tokenize=False)


@given(pairs=st.lists(st.tuples(SAID, SAID), min_size=2, max_size=4), which=st.sampled_from(STABLE))
def test_the_last_turn_alone(chats, learned, pairs, which):
    tokenizer = chats.made[which]
    ids, labels = encode_one(tokenizer, Conversation(talk(pairs)), loss=Loss(assistant_only_loss="last"))
    (span,) = learned(tokenizer, ids, labels)
    assert span.strip() == pairs[-1][1] + chats.ends.get(which, "<|close|>")


@given(pairs=st.lists(st.tuples(SAID, SAID), min_size=2, max_size=4), given_turns=st.integers(0, 2))
def test_turns_in_the_prompt_are_not_learned(chats, learned, pairs, given_turns):
    tokenizer = chats.made["chatml"]
    given_turns = min(given_turns, len(pairs) - 1)
    ids, labels = encode_one(tokenizer, Conversation(talk(pairs), given=2 * given_turns + 1))
    assert learned(tokenizer, ids, labels) == [f"{answer}<|close|>" for _, answer in pairs[given_turns:]]


@pytest.mark.parametrize(
    "loss", [Loss(completion_only_loss=False), Loss(assistant_only_loss=False), Loss(train_on_inputs=True)]
)
def test_everything_is_learned_on_request(chats, loss):
    ids, labels = encode_one(chats.made["llama"], Conversation(talk([("a", "b"), ("c", "d")])), loss=loss)
    assert labels[1:] == ids[1:]


THINKING = talk([("a", "<hm></think>b"), ("c", "d")])


def test_a_template_that_forgets_can_teach_its_last_turn(chats, learned):
    tokenizer = chats.made["forgets thinking"]
    ids, labels = encode_one(tokenizer, Conversation(THINKING), loss=Loss(assistant_only_loss="last"))
    assert learned(tokenizer, ids, labels) == ["d<|close|>"]
    assert "<hm>" not in tokenizer.decode(ids)


def test_a_template_that_forgets_is_believed_where_it_marks(chats, learned):
    tokenizer = chats.made["forgets thinking, marked"]
    ids, labels = encode_one(tokenizer, Conversation(THINKING))
    assert learned(tokenizer, ids, labels) == ["b<|close|>", "d<|close|>"]
    ids, labels = encode_one(tokenizer, Conversation([THINKING[0], {**THINKING[1], "weight": 0}, *THINKING[2:]]))
    assert learned(tokenizer, ids, labels) == ["d<|close|>"]


def test_a_template_that_forgets_is_refused_otherwise(chats):
    with pytest.raises(
        DataError, match=r"^here: expected a chat template that goes on .* \{% generation %\} .* last\)$"
    ):
        encode_one(chats.made["forgets thinking"], Conversation(THINKING))


def test_a_last_turn_may_end_otherwise(chats, learned):
    template = (
        "{% for m in messages %}<|open|>{{ m['role'] }}\n<|head|>{{ m['content'] }}"
        "{{ '<|tail|>' if loop.last and m['role'] == 'assistant' else '<|close|>' }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
    )
    tokenizer = chats.make(template)
    ids, labels = encode_one(tokenizer, Conversation(talk([("a", "b"), ("b", "b")])))
    assert learned(tokenizer, ids, labels) == ["<|head|>b<|close|>", "<|head|>b<|tail|>"]


def test_an_end_behind_the_end_is_learned_after_the_last_turn_alone(chats, learned):
    tokenizer = chats.make(chats.templates["chatml"] + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}")
    ids, labels = encode_one(tokenizer, Conversation(talk([("a", "b"), ("c", "d")])))
    assert learned(tokenizer, ids, labels) == ["b<|close|>", "d<|close|>\n<eos>"]
    assert ids.count(tokenizer.eos_token_id) == 1


def test_the_token_of_the_next_role_ends_a_turn_without_an_end(chats, learned):
    template = (
        "{% for m in messages %}{{ '<|head|>' if m['role'] == 'user' else '<|tail|>' }}{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|tail|>{% endif %}"
    )
    tokenizer = chats.make(template)
    ids, labels = encode_one(tokenizer, Conversation(talk([("a", "b"), ("c", "d")])))
    assert learned(tokenizer, ids, labels) == ["b<|head|>", "d<eos>"]


def test_marks_that_touch_are_one_turn(chats, learned):
    template = chats.templates["forgets thinking, marked"].replace(
        "{% endgeneration %}", "{% endgeneration %}{% generation %}<|tail|>{% endgeneration %}"
    )
    tokenizer = chats.make(template)
    ids, labels = encode_one(tokenizer, Conversation(THINKING))
    assert learned(tokenizer, ids, labels) == ["b<|tail|>", "d<|tail|>"]


@pytest.mark.parametrize("loss", [Loss(), Loss(assistant_only_loss=False)])
def test_a_template_that_leaves_texts_out_is_refused(chats, loss):
    template = (
        "{% for m in messages %}<|open|>{{ m['role'] }}{% for part in m['content'] %}{{ part.text }}{% endfor %}"
        "<|close|>{% endfor %}{% if add_generation_prompt %}<|open|>assistant{% endif %}"
    )
    with pytest.raises(DataError, match=r"^here, message \d: expected a chat template that writes"):
        encode_one(chats.make(template), Conversation(talk([("abc", "def")])), loss=loss)


def test_a_template_that_refuses_is_named_with_its_words(chats):
    conversation = Conversation(talk([("a", "b")], system="s"))
    with pytest.raises(DataError, match=r"^here: expected messages .* System role not supported"):
        encode_one(chats.made["gemma"], conversation)


def test_a_conversation_needs_a_template(chats):
    with pytest.raises(DataError, match=r"^here: expected a tokenizer with a chat template"):
        encode_one(chats.make(), Conversation(talk([("a", "b")])))


@given(pairs=st.lists(st.tuples(SAID, SAID), min_size=1, max_size=3))
def test_a_template_without_ends_gets_the_end_of_sequence(chats, learned, pairs):
    tokenizer = chats.made["unclosed"]
    ids, labels = encode_one(tokenizer, Conversation(talk(pairs)))
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == labels[-1] == tokenizer.eos_token_id
    assert learned(tokenizer, ids, labels)[-1] == f"{pairs[-1][1]}\n<eos>"


@given(text=LOOSE, ends=st.integers(0, 2), bos=st.booleans(), written=st.booleans(), blank=st.sampled_from(["", "\n"]))
def test_texts_begin_and_end_once(chats, text, ends, bos, written, blank):
    tokenizer = chats.make(bos=bos)
    whole = ("<bos>" if written else "") + text + "<eos>" * ends + (blank if ends else "")
    ids, labels = encode_one(tokenizer, Text(whole))
    assert ids.count(tokenizer.bos_token_id) == (bos or written)
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids) == ("<bos>" if bos or written else "") + text + "<eos>"
    assert labels[1:] == ids[1:]


@given(prompt=LOOSE, completion=LOOSE, ended=st.booleans(), bos=st.booleans(), trim=st.booleans())
def test_completions_are_learned_to_the_character(chats, learned, prompt, completion, ended, bos, trim):
    tokenizer = chats.make(bos=bos, trim=trim)
    ids, labels = encode_one(tokenizer, Completion(prompt, completion + ("<eos>" if ended else "")))
    assert learned(tokenizer, ids, labels) == [f"{completion}<eos>"]
    first = next(place for place, label in enumerate(labels) if label != -100)
    assert ids[:first] == tokenizer(prompt)["input_ids"]


@given(prompt=LOOSE, completion=LOOSE)
def test_inputs_are_learned_too_on_request(chats, prompt, completion):
    tokenizer = chats.make(bos=True)
    ids, labels = encode_one(tokenizer, Completion(prompt, completion), loss=Loss(train_on_inputs=True))
    assert labels[1:] == ids[1:]
    assert tokenizer.decode(ids) == f"<bos>{prompt}{completion}<eos>"


@given(bos=st.booleans(), name=st.sampled_from(["llama", "gemma", "closed by eos"]))
def test_a_beginning_in_the_template_is_not_doubled(chats, bos, name):
    tokenizer = chats.make(name, bos=bos)
    ids, _ = encode_one(tokenizer, Conversation(talk([("a", "b")])))
    assert ids.count(tokenizer.bos_token_id) == 1


@given(pairs=st.lists(st.tuples(SAID, SAID), min_size=1, max_size=3))
def test_an_end_in_the_template_is_not_doubled(chats, pairs):
    tokenizer = chats.make("chatml", eos="<|close|>")
    ids, labels = encode_one(tokenizer, Conversation(talk(pairs)))
    assert ids.count(tokenizer.eos_token_id) == 2 * len(pairs)
    assert sum(label == tokenizer.eos_token_id for label in labels) == len(pairs)


def samples(*pairs):
    return [(f"row {row}", Completion(*pair)) for row, pair in enumerate(pairs)]


@given(max_length=st.integers(2, 30))
def test_what_is_cut_is_counted(chats, max_length):
    tokenizer = chats.make()
    pairs = [("The capital of France is", " Paris, and the river"), ("yes", "no"), ("a b c d e f g h i j k", "l")]
    whole = encode(tokenizer, samples(*pairs)).rows
    cut = encode(tokenizer, samples(*pairs), max_length=max_length, drop_empty=True)
    kept = [row for row in whole if any(label != -100 for label in row["labels"][:max_length])]
    assert [row["input_ids"] for row in cut.rows] == [row["input_ids"][:max_length] for row in kept]
    assert [row["labels"] for row in cut.rows] == [row["labels"][:max_length] for row in kept]
    assert cut.cut == sum(len(row["input_ids"]) > max_length for row in whole)
    assert cut.dropped == len(whole) - len(kept)


def test_an_example_that_cutting_empties_is_an_error(chats):
    pairs = samples(("a", "b"), ("one two three four five six", "seven"))
    with pytest.raises(DataError, match=r"^row 1: expected a token to train on among the first 4, .* drop_empty\)$"):
        encode(chats.make(), pairs, max_length=4)


def test_an_end_alone_is_an_error(chats):
    with pytest.raises(DataError, match=r"^here: expected a text before its end"):
        encode_one(chats.make(), Text("<eos>\n<eos>"))


def test_a_tokenizer_needs_an_end(chats):
    tokenizer = chats.make()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="end-of-sequence"):
        encode_one(tokenizer, Text("a"))


def test_choices_are_checked():
    with pytest.raises(ConfigError, match="assistant_only_loss"):
        Loss(assistant_only_loss="first")


def test_a_template_takes_options(chats, learned):
    template = chats.templates["chatml"].replace("assistant\n", "assistant\n{{ '' if thinks else '<|tail|>' }}")
    template = template.replace("{{ m['content'] }}", "{{ '<|tail|>' if m['role'] == 'assistant' }}{{ m['content'] }}")
    tokenizer = chats.make(template)
    for thinks, span in ((True, "<|tail|>b<|close|>"), (False, "b<|close|>")):
        ids, labels = encode_one(tokenizer, Conversation(talk([("a", "b")]), options={"thinks": thinks}))
        assert learned(tokenizer, ids, labels) == [span]


def test_tool_calls_are_learned_and_their_answers_are_not(chats, learned):
    template = (
        "{% for m in messages %}<|open|>{{ m['role'] }}\n{{ m['content'] }}"
        "{% for call in m['tool_calls'] or [] %}{{ call['name'] }}(){% endfor %}<|close|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
    )
    messages = [
        {"role": "user", "content": "time?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "clock"}]},
        {"role": "tool", "content": "noon"},
        {"role": "assistant", "content": "It is noon."},
    ]
    tokenizer = chats.make(template)
    ids, labels = encode_one(tokenizer, Conversation(messages))
    assert learned(tokenizer, ids, labels) == ["clock()<|close|>", "It is noon.<|close|>"]
