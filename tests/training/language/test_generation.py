"""Answers: what a prompt gives alone it gives in any batch, with the adapter merged as with it apart."""

import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from randlora.errors import CheckpointError, ConfigError, DataError
from randlora.tasks.language import Conversation
from randlora.training import train
from randlora.training.adapted import load_adapted
from randlora.training.language import Decoding, generate, load_speaker
from randlora.training.language.prompts import token_ids
from randlora.training.merge import merge

PROMPTS = ("abc", "dda", "a", "abca dd bca", "c", "cab")


@pytest.fixture(scope="module")
def speaker(spoken_run):
    return load_speaker(str(spoken_run))


def asked(speaker, **options):
    return [token_ids(speaker, prompt, "here", **options) for prompt in PROMPTS]


def test_a_batch_answers_as_each_prompt_alone(speaker):
    prompts = asked(speaker)
    alone = [generate(speaker, [ids], batch_size=1)[0] for ids in prompts]
    assert len(set(alone)) > 2
    for size in (2, 4, 6):
        done = []
        assert generate(speaker, prompts, batch_size=size, advance=done.append) == alone
        assert sum(done) == len(prompts)


def test_a_prompt_near_the_end_of_the_context_changes_no_other(speaker):
    prompts = [[*asked(speaker)[0] * 4][:120], *asked(speaker)]
    alone = [generate(speaker, [ids], Decoding(30))[0] for ids in prompts]
    assert generate(speaker, prompts, Decoding(30), batch_size=7) == alone


def test_the_answers_are_those_of_the_adapter_and_not_of_the_base(speaker, spoken_run, llama):
    ids = asked(speaker)[0]
    adapted, _ = load_adapted(spoken_run)
    found = adapted.eval().generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20)
    answer = speaker.tokenizer.decode(found[0, len(ids) :], skip_special_tokens=True)
    base = load_speaker(str(llama))
    assert generate(speaker, [ids], Decoding(20))[0] == answer != generate(base, [ids], Decoding(20))[0]


def test_an_adapter_folder_speaks_as_its_run(speaker, spoken_run, tmp_path):
    shutil.copytree(spoken_run / "adapter", tmp_path / "adapter")
    moved = load_speaker(str(tmp_path / "adapter"))
    assert generate(moved, asked(moved)) == generate(speaker, asked(speaker))


def test_the_merged_folder_speaks_as_the_run(speaker, spoken_run, tmp_path):
    merge(spoken_run, tmp_path / "merged")
    merged = load_speaker(str(tmp_path / "merged"))
    assert merged.model.config.use_cache
    assert generate(merged, asked(merged)) == generate(speaker, asked(speaker))


def test_the_merged_folder_names_the_end_that_its_chat_template_writes(sft_config, tmp_path):
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<unk>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    (tmp_path / "template.jinja").write_text(template, encoding="utf-8")
    model = shutil.copytree(sft_config.model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"unk_token": "<pad>"})  # so that <unk> is a special token of no known use
    tokenizer.save_pretrained(model)
    sft_config.model, sft_config.data.chat_template_path = str(model), str(tmp_path / "template.jinja")
    sft_config.data.general, sft_config.optimization.max_steps = False, 1
    train(sft_config)
    for source in (sft_config.output, f"{sft_config.output}/adapter"):
        shutil.rmtree(tmp_path / "merged", ignore_errors=True)
        merge(source, tmp_path / "merged")
        assert GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id == [3, 1]


def test_draws_follow_the_seed(speaker):
    drawn = [generate(speaker, asked(speaker), Decoding(12, temperature=2.0, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    (prompt, *_) = asked(speaker)
    first = generate(speaker, [prompt] * 300, Decoding(1, temperature=1000.0), batch_size=300)
    assert len(set(first)) > 50  # of all tokens, which are as good as equally likely
    narrow = Decoding(12, temperature=1.0, top_p=1e-6)
    assert generate(speaker, asked(speaker), narrow) == generate(speaker, asked(speaker), Decoding(12))


def test_prompts_are_tokenized_as_in_training(speaker):
    messages = [{"role": "user", "content": "abc"}]
    own = speaker.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert token_ids(speaker, "abc", "here") == token_ids(speaker, Conversation(messages), "here") == own
    told = token_ids(speaker, "abc", "here", system="be")
    assert speaker.tokenizer.decode(told).startswith("<s> system : be </s>")
    assert token_ids(speaker, "abc", "here", raw=True) == speaker.tokenizer("abc")["input_ids"]


@pytest.mark.slow
def test_a_raw_prompt_is_not_closed_before_it_is_gone_on_with(llama, tmp_path):
    from tokenizers import processors

    tokenizer = AutoTokenizer.from_pretrained(llama)
    closing = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    tokenizer.backend_tokenizer.post_processor = closing
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(llama).save_pretrained(tmp_path)
    speaker = load_speaker(str(tmp_path))
    assert token_ids(speaker, "ab", "here") == [2, *tokenizer("ab", add_special_tokens=False)["input_ids"]]
    with pytest.raises(ConfigError, match="--system: expected a chat template"):
        token_ids(speaker, "ab", "here", system="be")
    with pytest.raises(DataError, match="chat template"):
        token_ids(speaker, Conversation([{"role": "user", "content": "a"}]), "here")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full", "hydralora"])
def test_every_kind_of_method_speaks(sft_config, method):
    sft_config.method.name, sft_config.optimization.max_steps = method, 1
    train(sft_config)
    speaker = load_speaker(sft_config.output)
    assert len(generate(speaker, asked(speaker), Decoding(5))) == len(PROMPTS)


@pytest.mark.slow
def test_a_quantized_base_speaks_with_its_adapter_beside_it(sft_config, tmp_path):
    pytest.importorskip("bitsandbytes")
    sft_config.quantization, sft_config.optimization.max_steps = "nf4", 1
    train(sft_config)
    speaker = load_speaker(sft_config.output)
    alone = [generate(speaker, [ids], Decoding(5))[0] for ids in asked(speaker)]
    assert generate(speaker, asked(speaker), Decoding(5)) == alone
    whole = load_speaker(sft_config.output, dequantize=True)
    assert not isinstance(whole.model, PeftModel)
    ids = torch.tensor([asked(speaker)[0]])
    # bitsandbytes multiplies quantized weights with less precision where nothing is trained.
    torch.testing.assert_close(whole.model(ids).logits, speaker.model(ids).logits, rtol=0, atol=1e-2)
    merge(sft_config.output, tmp_path / "merged")
    merged = load_speaker(str(tmp_path / "merged"))
    torch.testing.assert_close(merged.model(ids).logits, whole.model(ids).logits)


def test_what_is_no_language_model_is_refused(bert, text_config, tmp_path, spoken_run):
    with pytest.raises(ConfigError, match="model"):
        load_speaker(str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="--model: expected a run"):
        load_speaker(str(bert), str(bert))
    shutil.copytree(spoken_run, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "record.json").unlink()
    with pytest.raises(CheckpointError, match="finished"):
        load_speaker(str(tmp_path / "unfinished"))
    text_config.optimization.max_steps = 1
    train(text_config)
    with pytest.raises(ConfigError, match="text-classification"):
        load_speaker(text_config.output)
    with pytest.raises(ConfigError, match="SEQ_CLS"):
        load_speaker(f"{text_config.output}/adapter")


def test_a_prompt_that_fills_the_context_is_refused(speaker):
    with pytest.raises(DataError, match="prompt 3: expected from 1 to 127 tokens"):
        token_ids(speaker, "a" * 200, "prompt 3")
