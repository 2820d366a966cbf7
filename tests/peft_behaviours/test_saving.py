"""Saving and loading: which files, which adapters, which dtype, and a model state that comes back whole."""

import json
import warnings

import peft
import pytest
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch.distributed.fsdp import FullyShardedDataParallel

from every_method import METHODS, adapted, config, fill, layers, trained_names, with_second
from networks import Net, llama, rows, token_ids
from randlora import load_adapter
from randlora.errors import CheckpointError, UpdateError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def same_state(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(b[name], tensor) for name, tensor in a.items())


def test_every_adapter_in_a_folder_of_its_own(any_method, tmp_path):
    model = with_second(any_method, target_modules=["a", "b"], modules_to_save=["c"])
    model.save_pretrained(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    own = {"README.md", WEIGHTS, CONFIG}
    assert files == own | {f"other/{name}" for name in own - {"README.md"}} | (files & {"other/README.md"})
    loaded = peft.PeftModel.from_pretrained(Net(), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns of missing keys
        result = loaded.load_adapter(tmp_path / "other", "other")
    assert result.missing_keys == result.unexpected_keys == []
    assert same_state(model, loaded)
    for name in ("other", "default"):
        model.set_adapter(name)
        loaded.set_adapter(name)
        assert torch.equal(loaded(rows()), model(rows()))


def test_only_the_selected_one_whatever_the_others_are_called(method, tmp_path):
    model = adapted(method)
    expected = get_peft_model_state_dict(model)
    for name in ("default2", "other_default", "foodefault_bar", "efaul"):
        model.add_adapter(name, config(method))
    model.save_pretrained(tmp_path, selected_adapters=["default"])
    saved = load_file(tmp_path / WEIGHTS)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items())
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    with pytest.raises(ValueError, match="selected_adapters"):
        model.save_pretrained(tmp_path / "new", selected_adapters=["unknown"])


def test_the_config_comes_back(any_method, tmp_path):
    own = config(
        any_method, dropout=0.25, layers_to_transform=None, exclude_modules=["z"], task_type="FEATURE_EXTRACTION"
    )
    model = fill(peft.get_peft_model(Net(), own, adapter_name="mine"))
    model.save_pretrained(tmp_path)
    found = peft.PeftConfig.from_pretrained(tmp_path / "mine")
    assert type(found) is METHODS[any_method][0]
    assert found.inference_mode
    found.inference_mode = model.peft_config["mine"].inference_mode
    assert found.to_dict() == model.peft_config["mine"].to_dict()
    written = json.loads((tmp_path / "mine" / CONFIG).read_text())
    assert written["peft_type"] == METHODS[any_method][0].type_name
    assert written["peft_version"]


def test_a_config_with_a_field_of_a_later_version_loads_with_a_warning(method, tmp_path):
    model = adapted(method)
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(values | {"of_a_later_version": 1}))
    with pytest.warns(UserWarning, match="of_a_later_version"):
        loaded = peft.PeftModel.from_pretrained(Net(), tmp_path)
    assert torch.equal(loaded(rows()), model(rows()))


def test_a_config_given_at_load_is_used(method, tmp_path):
    model = adapted(method)
    model.save_pretrained(tmp_path)
    own = config(method)
    loaded = peft.PeftModel.from_pretrained(Net(), tmp_path, config=own)
    assert loaded.peft_config["default"] is own
    assert own.inference_mode
    assert torch.equal(loaded(rows()), model(rows()))


def test_the_state_dict_without_files(method):
    model = with_second(method, target_modules=["a", "b"], modules_to_save=["c"])
    for name in ("default", "other"):
        state = get_peft_model_state_dict(model, adapter_name=name)
        fresh = peft.get_peft_model(Net(), model.peft_config[name], adapter_name=name).eval()
        result = set_peft_model_state_dict(fresh, state, adapter_name=name)
        assert not result.unexpected_keys
        model.set_adapter(name)
        assert torch.equal(fresh(rows()), model(rows()))
    prefix = model.base_model.prefix
    assert all(prefix in key or ".c." in key for key in state)


def test_a_state_dict_that_does_not_fit_is_refused(method):
    model = adapted(method)
    state, before = get_peft_model_state_dict(model), model(rows())
    lacking = dict(list(state.items())[1:])
    for wrong in (lacking, {**state, f"base_model.model.z.{model.base_model.prefix}x": torch.ones(1)}):
        with pytest.raises(CheckpointError, match="adapter tensor") as caught:
            set_peft_model_state_dict(model, {key: 2 * tensor for key, tensor in wrong.items()})
        assert "\n" not in str(caught.value)
    assert torch.equal(model(rows()), before)


def test_a_trained_model_comes_back_and_trains_on(method, tmp_path):
    model = adapted(method, target_modules=["a", "b"], modules_to_save=["c"]).train()
    target = torch.randn(5, 11)

    def step(one):
        optimizer = torch.optim.SGD([p for p in one.parameters() if p.requires_grad], lr=0.01)
        (one(rows()) - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return one

    step(model).save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(Net(), tmp_path, is_trainable=True)
    assert same_state(model, loaded)
    assert same_state(step(model), step(loaded.train()))


@pytest.mark.parametrize(
    ("dtype", "autocast_adapter_dtype", "low_cpu_mem_usage"),
    [
        (torch.float16, False, True),
        (torch.bfloat16, False, False),
        (torch.bfloat16, True, True),
        (torch.float32, True, False),
        (torch.float64, False, True),
    ],
)
def test_what_is_trained_is_in_float32_or_wider(method, dtype, autocast_adapter_dtype, low_cpu_mem_usage, tmp_path):
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    options = {"autocast_adapter_dtype": autocast_adapter_dtype}
    model = peft.get_peft_model(Net().to(dtype), config(method), **options)
    model.add_adapter("other", config(method), **options)
    model.save_pretrained(tmp_path)
    options["low_cpu_mem_usage"] = low_cpu_mem_usage
    loaded = peft.PeftModel.from_pretrained(Net().to(dtype), tmp_path, **options)
    loaded.load_adapter(tmp_path / "other", "other", **options)
    for one in (model, loaded):
        trained = [p for layer in layers(one) for name in ("default", "other") for p in layer.trained(name)]
        assert {(p.dtype, p.device.type) for p in trained} == {(wanted, "cpu")}
        assert {layer.get_base_layer().weight.dtype for layer in layers(one)} == {dtype}
    assert torch.equal(loaded.eval()(rows().to(dtype)), model.eval()(rows().to(dtype)))


def test_saved_while_merged(mergeable, tmp_path):
    model = adapted(mergeable)
    expected = model(rows())
    model.merge_adapter()
    model.save_pretrained(tmp_path)
    assert torch.equal(peft.PeftModel.from_pretrained(Net(), tmp_path)(rows()), expected)


def test_nothing_is_loaded_into_a_merged_adapter(mergeable, tmp_path):
    model = adapted(mergeable)
    expected = model(rows())
    model.save_pretrained(tmp_path)
    model.merge_adapter()
    for load in (
        lambda: model.load_adapter(tmp_path, "default"),
        lambda: set_peft_model_state_dict(model, get_peft_model_state_dict(model)),
    ):
        with pytest.raises(UpdateError, match="adapter 'default': expected an unmerged one"):
            load()
    model.unmerge_adapter()
    torch.testing.assert_close(model(rows()), expected)


def test_modules_whose_names_begin_alike(method, tmp_path):
    class Heads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.body = torch.nn.Linear(13, 9)
            self.head, self.head2, self.head3 = (torch.nn.Linear(9, 4) for _ in range(3))

        def forward(self, x):
            return self.head(x := self.body(x)) + self.head2(x) * self.head3(x)

    own = {"target_modules": ["body"], "modules_to_save": ["head2", "head"]}
    model = adapted(method, Heads(), **own)
    model.add_adapter("other", config(method, target_modules=["body"], modules_to_save=["head3"]))
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(Heads(), tmp_path)
    loaded.load_adapter(tmp_path / "other", "other")
    assert same_state(model, loaded)
    assert torch.equal(loaded(rows()), model(rows()))


def test_loaded_with_a_device_map(method, tmp_path):
    model = adapted(method)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(Net(), tmp_path, device_map={"": "cpu"}, torch_device="cpu")
    assert torch.equal(loaded(rows()), model(rows()))


def test_pickled_files_are_not_ours_to_read(method, tmp_path):
    adapted(method).save_pretrained(tmp_path, safe_serialization=False)  # PEFT's own code
    assert not (tmp_path / WEIGHTS).exists()
    with pytest.raises(CheckpointError, match="safetensors"):
        load_adapter(Net(), tmp_path)


@pytest.mark.parametrize("save_embedding_layers", ["auto", True, False])
def test_base_tables_beside_an_adapted_embedding(save_embedding_layers, tmp_path):
    model = adapted("randlora", llama(), target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM")
    expected = model(token_ids()).logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT says what "auto" decides
        model.save_pretrained(tmp_path, save_embedding_layers=save_embedding_layers)
    saved = load_file(tmp_path / WEIGHTS)
    tables = {name for name in saved if name.endswith("base_layer.weight")}
    assert tables == ({"base_model.model.model.embed_tokens.base_layer.weight"} if save_embedding_layers else set())
    assert torch.equal(peft.PeftModel.from_pretrained(llama(), tmp_path)(token_ids()).logits, expected)


def test_a_table_of_another_size_is_refused_whatever_is_ignored(tmp_path):
    nets = [torch.nn.Sequential(torch.nn.Embedding(entries, 6), torch.nn.Linear(6, 5)) for entries in (4, 5)]
    adapted("randlora", nets[0], target_modules=["0", "1"]).save_pretrained(tmp_path)
    for options in ({}, {"ignore_mismatched_sizes": True}):
        with pytest.raises(CheckpointError, match=r"layer '0': expected shape 4x6.*got 5x6"):
            peft.PeftModel.from_pretrained(nets[1], tmp_path, **options)


@pytest.mark.parametrize(
    ("bias", "expected"), [("none", set()), ("all", {"a.base_layer.bias", "b.bias"}), ("only", {"a.base_layer.bias"})]
)
def test_trained_biases_are_saved(method, bias, expected, tmp_path):
    bias = f"{METHODS[method][0].prefix}only" if bias == "only" else bias
    model = adapted(method, target_modules=["a"], bias=bias)  # fills what is trained, biases too
    assert {name for name in trained_names(model) if name.endswith("bias")} == expected
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(Net(), tmp_path)
    assert same_state(model, loaded)
    assert torch.equal(loaded(rows()), model(rows()))


@pytest.fixture
def one_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("bias", ["none", "all"])
@pytest.mark.usefixtures("one_process")
def test_the_state_of_a_sharded_model(method, bias):
    model = adapted(method, bias=bias)
    expected = model(rows())
    sharded = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(sharded(rows()), expected)
    state = get_peft_model_state_dict(sharded)
    fresh = peft.get_peft_model(Net(), config(method, bias=bias)).eval()
    set_peft_model_state_dict(fresh, state)
    torch.testing.assert_close(fresh(rows()), expected)
