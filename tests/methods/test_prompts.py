"""Prompt methods against their papers' equations, written out for one caption and one image in float64."""

import math

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel

import clip_literal as literal
from randlora.errors import ConfigError, DataError, LayerError
from randlora.methods import PROMPTS, CoCoOpConfig, CoOpConfig, MapleConfig, PromptSRCConfig
from randlora.methods.prompts.tokens import Words, class_tokens
from randlora.methods.prompts.tuner import prompts_of
from randlora.tasks.classification.prompted import PromptClassifier

BLOCKS, HEADS, START, END, DOT, CLASSES = 3, 2, 2, 3, 9, 3
NAMES = [[5], [6, 7], [8, 5, 6]]
WORD_IDS = [10, 11, 12, 10]
LABELS = [2, 0, 1, 1]


@pytest.fixture
def clip():
    torch.manual_seed(0)
    tower = {"num_hidden_layers": BLOCKS, "num_attention_heads": HEADS, "attn_implementation": "eager"}
    text = {"hidden_size": 12, "intermediate_size": 20, "vocab_size": 20, "max_position_embeddings": 24}
    vision = {"hidden_size": 16, "intermediate_size": 24, "image_size": 8, "patch_size": 4}
    text |= {"bos_token_id": START, "eos_token_id": END, "pad_token_id": 0}
    model = CLIPModel(CLIPConfig(text_config={**tower, **text}, vision_config={**tower, **vision}, projection_dim=10))
    for parameter in model.parameters():  # biases and norms that do something
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    torch.nn.init.constant_(model.logit_scale, 1.5)
    return model.double()


@pytest.fixture
def pixels():
    return torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def attached(clip, config, frozen=None):
    """The classifier and its prompts, moved away from their start."""
    config.settle(CLASSES, WORD_IDS)
    model = peft.get_peft_model(clip, config).double()
    prompts = prompts_of(model)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in prompts.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    words = Words([START], [END], NAMES, config.behind, [DOT])
    tokens = class_tokens(words, ["a", "b", "c"], config.length, 24, prompts.position)
    return PromptClassifier(model, tokens, CLASSES, frozen), prompts


def weights(clip):
    return dict(clip.named_parameters())


def sequence(W, context, name, position="end", behind=()):
    """A caption's vectors, put together token by token."""
    table = W["text_model.embeddings.token_embedding.weight"]
    name = [table[token] for token in [*behind, *name]]
    vectors = list(context)
    half = {"end": len(vectors), "middle": len(vectors) // 2, "front": 0}[position]
    return torch.stack([table[START], *vectors[:half], *name, *vectors[half:], table[DOT], table[END]])


def captions(W, context, deep=(), position="end", behind=()):
    rows = context if context.dim() == 3 else [context] * CLASSES
    rows = [sequence(W, own, name, position, behind) for own, name in zip(rows, NAMES, strict=True)]
    return [literal.caption(W, row, BLOCKS, HEADS, deep) for row in rows]


def images(W, pixels, prompts=()):
    return [literal.image(W, one, BLOCKS, HEADS, prompts) for one in pixels]


def expect(classifier, prompts, pixels, wanted, loss=None):
    """Logits and loss with the gradients of everything that is trained are those of the literal."""
    trained = {name: part for name, part in prompts.named_parameters() if part.numel()}
    outputs = classifier.train()(pixels)
    labels = torch.tensor(LABELS)
    assert_close(outputs["logits"], wanted, rtol=1e-9, atol=1e-9)
    loss = literal.entropy(wanted, LABELS) if loss is None else loss
    found = classifier.loss(outputs, labels)
    assert_close(found, loss, rtol=1e-9, atol=1e-9)
    # Two passes of gradient accumulation are one of all their examples.
    assert_close(classifier.loss(outputs, labels, 2 * len(labels)), loss / 2, rtol=1e-9, atol=1e-9)
    theirs = torch.autograd.grad(loss, trained.values(), retain_graph=True)
    ours = torch.autograd.grad(found, trained.values())
    for name, left, right in zip(trained, ours, theirs, strict=True):
        assert right.abs().max() > 0, name
        assert_close(left, right, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_coop(clip, pixels, position, class_specific):
    config = CoOpConfig(length=5, position=position, class_specific=class_specific)
    classifier, prompts = attached(clip, config)
    W = weights(clip)
    wanted = literal.logits(W, images(W, pixels), captions(W, prompts.context, position=position))
    expect(classifier, prompts, pixels, wanted)


def test_cocoop(clip, pixels, monkeypatch):
    monkeypatch.setattr("randlora.methods.prompts.cocoop._ROWS", 2 * CLASSES)  # two images at once
    monkeypatch.setattr("randlora.methods.prompts.cocoop.NARROWING", 3)
    classifier, prompts = attached(clip, CoCoOpConfig())
    W, found = weights(clip), images(weights(clip), pixels)
    own = []
    for one in found:
        inner = torch.clamp(prompts.shift[0].weight @ literal.unit(one) + prompts.shift[0].bias, min=0)
        own.append(captions(W, prompts.context + prompts.shift[2].weight @ inner + prompts.shift[2].bias))
    assert prompts.shift[0].weight.shape == (10 // 3, 10)
    expect(classifier, prompts, pixels, literal.logits(W, found, own))


def maple(W, prompts, pixels):
    """Features of images and captions; the words that are not trained stand between context and name."""
    coupled = [
        layer @ chart.weight.T + chart.bias
        for layer, chart in zip([prompts.context, *prompts.deep], prompts.maps, strict=True)
    ]
    return images(W, pixels, coupled), captions(W, prompts.context, prompts.deep, behind=WORD_IDS[2:])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_maple(clip, pixels, depth):
    classifier, prompts = attached(clip, MapleConfig(depth=depth))
    W = weights(clip)
    expect(classifier, prompts, pixels, literal.logits(W, *maple(W, prompts, pixels)))


def test_promptsrc(clip, pixels):
    W = weights(clip)
    then = torch.stack([literal.unit(torch.randn(10, dtype=torch.float64)) for _ in range(CLASSES)])
    classifier, prompts = attached(clip, PromptSRCConfig(depth=2), frozen=then)
    found = images(W, pixels, prompts.vision)
    texts = captions(W, prompts.context, prompts.deep)
    wanted = literal.logits(W, found, texts)
    frozen = [literal.unit(one) for one in images(W, pixels)]
    before = literal.logits(W, frozen, list(then))
    loss = literal.entropy(wanted, LABELS)
    loss = (
        loss + 25 * torch.stack([(literal.unit(t) - u).abs().mean() for t, u in zip(texts, then, strict=True)]).mean()
    )
    loss = (
        loss + 10 * torch.stack([(literal.unit(x) - u).abs().mean() for x, u in zip(found, frozen, strict=True)]).mean()
    )
    p, q = torch.softmax(before, dim=1), torch.softmax(wanted, dim=1)
    loss = loss + (p * (torch.log(p) - torch.log(q))).sum() / wanted.numel()
    expect(classifier, prompts, pixels, wanted, loss)


def test_dept(clip, pixels):
    classifier, prompts = attached(clip, MapleConfig(depth=2, transfer=True))
    W, head = weights(clip), prompts.transfer
    found, texts = maple(W, prompts, pixels)
    wanted = literal.logits(W, found, texts)
    W2, b = head.classifier.weight, head.classifier.bias
    of_images = torch.stack([W2 @ (head.image_scale * x + head.image_shift) + b for x in found])
    of_captions = torch.stack([W2 @ (head.text_scale * texts[label] + head.text_shift) + b for label in LABELS])
    both = literal.entropy(torch.cat([of_captions, of_images]), LABELS * 2)
    expect(classifier, prompts, pixels, wanted, 0.3 * literal.entropy(wanted, LABELS) + 0.7 * both)
    classifier.eval()
    assert_close(classifier(pixels)["logits"], 0.3 * wanted + 0.7 * of_images, rtol=1e-9, atol=1e-9)
    classifier.show(range(1, CLASSES))  # as new classes: the prompts' logits alone
    assert_close(classifier(pixels)["logits"], wanted[:, 1:], rtol=1e-9, atol=1e-9)


def test_every_image_has_its_own_captions_in_dept_on_cocoop(clip, pixels):
    classifier, _ = attached(clip, CoCoOpConfig(transfer=True))
    outputs = classifier.train()(pixels)
    labels = torch.tensor(LABELS)
    one_by_one = []
    for index, label in enumerate(LABELS):
        part = classifier(pixels[index : index + 1])
        one_by_one.append(classifier.loss(part, labels[index : index + 1]))
        assert label == labels[index]
    assert_close(classifier.loss(outputs, labels), torch.stack(one_by_one).mean())


def test_words_start_the_context_at_clips_own_captions(clip, pixels):
    """Before training the prompts of "a photo of a" are a template."""
    config = CoCoOpConfig()
    config.settle(CLASSES, WORD_IDS)
    model = peft.get_peft_model(clip, config).double()
    prompts = prompts_of(model)
    torch.nn.init.zeros_(prompts.shift[2].weight)
    torch.nn.init.zeros_(prompts.shift[2].bias)
    tokens = class_tokens(Words([START], [END], NAMES, [], [DOT]), ["a", "b", "c"], 4, 24, "end")
    rows = [[START, *WORD_IDS, *name, DOT, END] for name in NAMES]
    wanted = [clip.get_text_features(torch.tensor([row])).pooler_output[0] for row in rows]
    assert_close(prompts.text(clip, tokens, torch.randn(1, 10).double())[0], torch.stack(wanted))


@given(
    names=st.lists(st.lists(st.integers(20, 40), min_size=1, max_size=6), min_size=1, max_size=4),
    length=st.integers(1, 9),
    behind=st.lists(st.integers(50, 60), max_size=3),
    position=st.sampled_from(["end", "middle", "front"]),
)
def test_a_caption_without_its_context_is_what_the_words_say(names, length, behind, position):
    words = Words([START], [END], names, behind, [DOT])
    tokens = class_tokens(words, [str(name) for name in names], length, 24, position)
    for name, ids, places, last in zip(names, tokens.ids, tokens.places, tokens.last, strict=True):
        kept = [int(ids[place]) for place in range(int(last) + 1) if place not in places]
        assert kept == [START, *behind, *name, DOT, END]
        assert len(set(places.tolist())) == length == sum(ids == 0)
        assert all(ids[last + 1 :] == END)


def test_the_average_weighs_epochs_by_a_gaussian(clip):
    config = PromptSRCConfig(depth=2, average_mean=0.5, average_std=0.2)
    _, prompts = attached(clip, config)
    prompts.take_average()  # before the first epoch there is none
    values, weighed = [], []
    for epoch in range(1, 5):
        with torch.no_grad():
            prompts.vision.add_(torch.randn_like(prompts.vision))
        values.append(prompts.vision.detach().clone())
        weighed.append(math.exp(-((epoch / 4 - 0.5) ** 2) / (2 * 0.2**2)))
        prompts.add_epoch(epoch / 4)
    prompts.take_average()
    wanted = sum(weight * value for weight, value in zip(weighed, values, strict=True)) / sum(weighed)
    assert_close(prompts.vision, wanted)


def test_an_average_far_from_every_epoch_is_one_all_the_same(clip):
    _, prompts = attached(clip, PromptSRCConfig(depth=2, average_mean=0.5, average_std=1e-3))
    start = prompts.vision.detach().clone()
    prompts.add_epoch(1.0)
    with torch.no_grad():
        prompts.vision.add_(1)
    prompts.take_average()
    assert_close(prompts.vision, start)
    with pytest.raises(ConfigError, match="average_mean: expected a share of the training, at most 1, got 15"):
        PromptSRCConfig(average_mean=15)


COUNTS = {"coop": 8_192, "cocoop": 35_360, "maple": 3_555_072, "promptsrc": 46_080, "dept": 3_555_072 + 2_048 + 51_300}
"""Of the papers, on ViT-B/16: 16 · 512, 35,360, 3.55 M, 46 thousand; DePT's has 4 · 512 + 513 · 100 classes more."""


@pytest.mark.parametrize("method", PROMPTS, ids=lambda method: method.name)
def test_trained_numbers_are_the_papers(method):
    vision = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "patch_size": 16}
    sizes = CLIPConfig(text_config={"hidden_size": 512}, vision_config=vision, projection_dim=512)
    with torch.device("meta"):
        model = CLIPModel(sizes)
        config = method.config(**method.start)
        config.settle(100, list(range(4)))
        adapted = peft.get_peft_model(model, config)
    trained = sum(part.numel() for part in adapted.parameters() if part.requires_grad)
    assert trained == method.trained(config, sizes) == COUNTS[method.name]


def test_contexts_of_their_own_are_counted_by_class(clip):
    config = CoOpConfig(length=4, class_specific=True)
    _, prompts = attached(clip, config)
    assert (
        sum(part.numel() for part in prompts.parameters())
        == 4 * 12 * CLASSES
        == PROMPTS[0].trained(config, clip.config)
    )


def test_saved_are_the_trained_numbers_and_loaded_they_are_the_same(clip, pixels, tmp_path):
    classifier, prompts = attached(clip, MapleConfig(depth=2, transfer=True))
    pixels = pixels.float()
    wanted = classifier.float().eval()(pixels)["logits"]
    classifier.clip.save_pretrained(tmp_path)
    base = classifier.clip.unload()
    assert prompts_of(base) is None
    loaded = peft.PeftModel.from_pretrained(base, tmp_path)
    again = prompts_of(loaded)
    assert again is not prompts
    assert not any(part.requires_grad for part in loaded.parameters())
    for name, part in again.named_parameters():
        assert torch.equal(part, prompts.get_parameter(name)), name
    tokens = class_tokens(Words([START], [END], NAMES, WORD_IDS[2:], [DOT]), ["a", "b", "c"], 2, 24, "end")
    assert torch.equal(PromptClassifier(loaded, tokens, CLASSES, None).eval()(pixels)["logits"], wanted)


def test_what_prompts_cannot_do_is_refused(clip):
    with pytest.raises(LayerError, match="expected a CLIPModel, with a text and a vision tower, got Linear"):
        peft.get_peft_model(torch.nn.Linear(2, 2), CoOpConfig())
    with pytest.raises(ConfigError, match=r"depth: expected at most 3, the blocks of the towers, got 9"):
        peft.get_peft_model(clip, MapleConfig(words=None))
    with pytest.raises(ConfigError, match=r"words: expected at least 7 tokens, the context's length, got 4 in"):
        CoCoOpConfig(length=7).settle(CLASSES, WORD_IDS)
    with pytest.raises(ConfigError, match=r"classes: expected the number of classes, for contexts of their own"):
        peft.get_peft_model(clip, CoOpConfig(class_specific=True))
    with pytest.raises(ConfigError, match=r"classes: expected the number of classes, for the transfer head"):
        peft.get_peft_model(clip, CoOpConfig(transfer=True))
    words = Words([START], [END], NAMES, [], [DOT])
    with pytest.raises(DataError, match=r"names of at most 2 tokens beside a context of 19, got 3 in 'c'"):
        class_tokens(words, ["a", "b", "c"], 19, 24, "end")
    model = peft.get_peft_model(clip, CoOpConfig())
    for action in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(LayerError, match=r"prompts: expected an adapter of weights to merge, got one of inputs"):
            action()
    with pytest.raises(
        LayerError, match=r"prompts: expected an adapter of weights to delete, got one of inputs \(unload"
    ):
        model.delete_adapter("default")
    with pytest.raises(LayerError, match="prompts: expected adapters of weights to sum, got one of inputs"):
        model.add_weighted_adapter(["default"], [1.0], "sum")
    with pytest.raises(ConfigError, match="one set of prompts on a model"):
        model.add_adapter("other", CoOpConfig())


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (CoOpConfig, {"length": 0}),
        (CoOpConfig, {"position": "before"}),
        (CoCoOpConfig, {"transfer_weight": 1.0}),
        (MapleConfig, {"depth": True}),
        (PromptSRCConfig, {"text_weight": -1.0}),
        (PromptSRCConfig, {"image_weight": math.inf}),
        (PromptSRCConfig, {"average_std": 0.0}),
    ],
)
def test_values_out_of_range_are_named(config, options):
    (name,) = options
    with pytest.raises(ConfigError, match=rf"^{name}: expected"):
        config(**options)
