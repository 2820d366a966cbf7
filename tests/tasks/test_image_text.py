import pytest
import torch
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel

from randlora.errors import DataError
from randlora.tasks import ImageTextData
from randlora.tasks.classification.captions import captions
from randlora.tasks.classification.zero_shot import ZeroShotClassifier

CLASSES, TEMPLATES = 3, 2


@pytest.fixture
def clip():
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 3}
    vision = {"image_size": 16, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config={**tower, **text}, vision_config={**tower, **vision}, projection_dim=8))


@pytest.fixture
def prompts():
    ids = torch.randint(4, 20, (CLASSES * TEMPLATES, 6), generator=torch.Generator().manual_seed(0))
    ids[:, -1] = 3
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def classifier(clip, prompts, **options):
    return ZeroShotClassifier(clip, prompts, CLASSES, **{"text_trained": True, "train_head": False, **options})


def test_logits_are_scaled_cosines_with_the_mean_caption(clip, prompts):
    pixels = torch.randn(5, 3, 16, 16)
    model = classifier(clip, prompts).eval()
    logits = model(pixels)["logits"]
    with torch.no_grad():
        output = clip(**prompts, pixel_values=pixels)
    head = normalize(output.text_embeds.view(CLASSES, TEMPLATES, -1).mean(dim=1), dim=-1)
    torch.testing.assert_close(logits, clip.logit_scale.exp() * output.image_embeds @ head.T, rtol=1e-4, atol=1e-4)


def test_all_kinds_of_head_start_at_the_zero_shot_head(clip, prompts):
    pixels = torch.randn(5, 3, 16, 16)
    kinds = ({}, {"text_trained": False}, {"text_trained": False, "train_head": True})
    first, *others = (classifier(clip, prompts, **kind).eval()(pixels)["logits"] for kind in kinds)
    for other in others:
        torch.testing.assert_close(first, other)


def test_the_text_tower_gets_gradients_only_where_it_is_trained(clip, prompts):
    weight = clip.text_model.encoder.layers[0].mlp.fc1.weight
    for text_trained in (True, False):
        weight.grad = None
        model = classifier(clip, prompts, text_trained=text_trained).train()
        model(torch.randn(2, 3, 16, 16))["logits"].sum().backward()
        assert (weight.grad is not None) == text_trained


def test_an_evaluation_after_a_change_of_the_text_tower_sees_it(clip, prompts):
    pixels = torch.randn(2, 3, 16, 16)
    model = classifier(clip, prompts)
    with torch.no_grad():
        before = model.eval()(pixels)["logits"]
        clip.text_projection.weight.copy_(torch.randn_like(clip.text_projection.weight))
        assert torch.equal(before, model(pixels)["logits"])  # within one evaluation the head is computed once
        assert not torch.allclose(before, model.eval()(pixels)["logits"])


def test_logits_stay_fp32_under_autocast(clip, prompts):
    with torch.autocast("cpu", torch.bfloat16):
        assert classifier(clip, prompts)(torch.randn(2, 3, 16, 16))["logits"].dtype == torch.float32


def test_captions_are_class_by_class():
    data = ImageTextData(prompt_templates=["a {}.", "one {}!"])
    assert captions(data, ["tabby_cat", "dog"]) == ["a tabby cat.", "one tabby cat!", "a dog.", "one dog!"]
    data.class_names = ["kitten", "puppy"]
    assert captions(data, ["tabby_cat", "dog"])[::2] == ["a kitten.", "a puppy."]
    for names in (["dog", "tabby_cat"], ["dog", "tabby cat"]):
        data.class_names = names
        with pytest.raises(DataError, match=r"data\.class_names: expected the order of the labels, tabby_cat, dog"):
            captions(data, ["tabby_cat", "dog"])
    data.class_names = ["dog", " "]
    with pytest.raises(DataError, match=r"data\.class_names: expected words for each label, got a blank name"):
        captions(data, ["tabby_cat", "dog"])
    data.class_names = ["dog", "dog"]
    with pytest.raises(DataError, match=r"data\.class_names: expected a name of its own .* got 'dog' twice"):
        captions(data, ["tabby_cat", "dog"])
    data.class_names = ["kitten"]
    with pytest.raises(DataError, match=r"data\.class_names: expected 2 names"):
        captions(data, ["tabby_cat", "dog"])
