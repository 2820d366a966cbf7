"""Answers to prompts, in batches that give what each prompt gives alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from randlora.errors import DataError
from randlora.tasks.language.rendering import closing_tokens
from randlora.tasks.language.samples import Conversation, Message
from randlora.tasks.language.templates import ChatTemplate
from randlora.tasks.language.turns import Turns

GREEDY: Mapping[str, Any] = MappingProxyType({"do_sample": False, "temperature": None, "top_p": None, "top_k": None})
"""Arguments of transformers' `generate` that take the likeliest token, whatever the model's own config draws with."""


_TALK: list[Message] = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "welcome"},
    {"role": "user", "content": "thanks"},
    {"role": "assistant", "content": "bye"},
]


def ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: those that the model's config names, the tokenizer's, and the chat template's.

    Chat templates end a turn with another token than a text, and neither the config nor the tokenizer need know it: a
    base model that learns one has never seen it.
    """
    known = model.generation_config.eos_token_id
    found = [known] if isinstance(known, int) else list(known or [])
    return list(dict.fromkeys([*found, tokenizer.eos_token_id, *_turn_ends(tokenizer)]))


def _turn_ends(tokenizer: Any) -> list[int]:
    """Tokens with which the chat template ends the assistant's turns, as training marks them; none without one."""
    closers = closing_tokens(tokenizer)
    found: list[str] = []
    for messages in (_TALK[:2], _TALK):  # some templates end the last turn otherwise, some tell no other
        try:
            turns = Turns(ChatTemplate(tokenizer, "the chat template"), closers, "the chat template")
            text, spans = turns.find(Conversation(messages))
        except DataError:  # there is none, or it does not go on from what it rendered
            continue
        found += [closer for start, end in spans for closer in closers if text[start:end].endswith(closer)]
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in found]


@torch.no_grad()
def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    rooms: Sequence[int],
    *,
    batch_size: int,
    options: Mapping[str, Any] = GREEDY,
    advance: Callable[[int], object] = lambda _: None,
) -> list[str]:
    """Go on from prompts.

    Prompts are padded on the left and masked. Prompts of like length go together, and all of a batch may answer at the
    same length, so that without draws no answer depends on its batch, up to the last bits of the arithmetic.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer, with a token that pads.
        prompts: Token ids of each prompt.
        rooms: Tokens that each may be answered with, at most.
        batch_size: Prompts that are answered together.
        options: Arguments of transformers' `generate`; what else the model's own config says (penalties) holds.
        advance: Called after every batch with its size.

    Returns:
        The answers, in the order of the prompts, without special tokens.
    """
    answers = [""] * len(prompts)
    stops = ends(model, tokenizer)
    for batch in _batches(prompts, rooms, batch_size):
        inputs = tokenizer.pad({"input_ids": [prompts[i] for i in batch]}, padding_side="left", return_tensors="pt")
        inputs = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
        found = model.generate(
            **inputs,
            max_new_tokens=rooms[batch[0]],
            eos_token_id=stops,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,  # off in the model's config while it is trained
            **options,
        )
        new = tokenizer.batch_decode(found[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, answer in zip(batch, new, strict=True):
            answers[index] = str(answer)
        advance(len(batch))
    return answers


def _batches(prompts: Sequence[list[int]], rooms: Sequence[int], size: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda index: (rooms[index], len(prompts[index]))):
        if batch and (len(batch) == size or rooms[index] != rooms[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
