"""What an adapter holds, or what a run would train: layers, numbers, ranks, bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer

from randlora.errors import CheckpointError, DataError
from randlora.formats.checkpoint import WEIGHTS_FILE, adapter_file_errors, read_adapter_config, read_tensor_shapes
from randlora.formats.numbers import trained_numbers
from randlora.methods.randlora import RandLoraLayer
from randlora.tasks import TASKS, Task
from randlora.tasks.paths import local
from randlora.tasks.rows import is_local
from randlora.training.config.method_table import METHODS
from randlora.training.config.sections import TrainConfig, resolve
from randlora.training.config.start import adapter_of, searches_ranks, with_start
from randlora.training.methods import build, is_head, load_model
from randlora.training.prediction import Prediction, predict
from randlora.training.run.weights import FILE_NAME as TRAINED

_LAMBDA = ".randlora_lambda"
_LORA_A, _LORA_B = ".lora_A.weight", ".lora_B.weight"
_SOON_READ = 2**25  # bytes of a data file; tokenizing them takes some ten seconds
_BYTES_PER_TRAINED = 16  # a float32 number, its gradient and AdamW's two moments


@dataclass(frozen=True)
class LayerInspection:
    """One adapted layer.

    Attributes:
        name: Its module's name.
        r: Basis rank; LoRA's rank.
        num_bases: n, ⌈m/r⌉ for full rank; None of a LoRA.
        trained: Trained numbers, n·r + n·m; of a hybrid adapter LoRA's too.
        rank: Highest rank of ΔW: min(m, r·n), of a hybrid adapter plus LoRA's rank, up to m.
    """

    name: str
    r: int
    num_bases: int | None
    trained: int
    rank: int


@dataclass(frozen=True)
class Inspection:
    """An adapter on disk, or the one that a run would train.

    Attributes:
        title: Method and family.
        layers: The layers with λ and γ, or of a LoRA with ranks by layer; none for other methods.
        adapted: How many layers are adapted, by any method; None where the file does not tell.
        trained: Trained numbers, without the head.
        adapter_bytes: Bytes of the trained numbers on disk.
        bases_bytes: Bytes of the frozen bases in memory, in float32.
        training_bytes: Expected memory of weights, in their dtype, and of trained numbers, gradients, AdamW's moments
            and bases, in float32; without activations. None where the base model is not known.
        prediction: Of the peak in training, activations included. None where the base model is not known.
    """

    title: str
    layers: list[LayerInspection]
    adapted: int | None
    trained: int
    adapter_bytes: int
    bases_bytes: int
    training_bytes: int | None
    prediction: Prediction | None = None


def inspect_adapter(folder: str | Path) -> Inspection:
    """Describe an adapter folder; no model is loaded.

    Raises:
        CheckpointError: It is missing or damaged, or holds the weights of a method without an adapter.
    """
    if (Path(folder) / TRAINED).is_file():
        hint = "the config.yaml of its run can be inspected in its place"
        raise CheckpointError(str(folder), expected="an adapter", got="weights of a method without one", hint=hint)
    config = read_adapter_config(folder)
    path = Path(folder) / WEIGHTS_FILE
    shapes = read_tensor_shapes(path)
    found = trained_numbers(config["peft_type"], shapes, config.get("init_lora_weights"))
    layers = _loras(shapes) if config.get("rank_pattern") and config["peft_type"] == "LORA" else []
    with adapter_file_errors(folder):
        for layer in sorted(name.removesuffix(_LAMBDA) for name in shapes if name.endswith(_LAMBDA)):
            prefix = f"{layer}."
            own = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
            if config["peft_type"] == "RANDLORA":  # whose λ is (r, n)
                own["randlora_lambda"] = own["randlora_lambda"][::-1]
            layers.append(_inspect_layer(layer, own, found.by_layer[layer], config.get("terms", 1)))
    # Beside prompts an adapter of the weights may be saved.
    trained = found.adapter + (found.whole if config.get("adapter") else 0)
    title = f"{config['peft_type']}, bases {config['bases']}" if "bases" in config else str(config["peft_type"])
    return Inspection(title, layers, len(found.by_layer) or None, trained, path.stat().st_size, 0, None)


def inspect_run(config: TrainConfig) -> Inspection:
    """Describe what a training config would train: the model is loaded and adapted, and one step of it followed.

    Training data are read where they lie here and are small, and else assumed to be as long as the config allows.

    Args:
        config: The run's config.

    Raises:
        ConfigError: The config is wrong, or the model cannot be loaded.
        DataError: An example is without a token to train on.
        LayerError: No layer matches.
    """
    config = resolve(with_start(config))
    method = config.method
    task = _with_data(config) or TASKS[config.task].without_data(config.data)  # the head is not counted
    load_model(task, config)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in task.backbone.parameters())
    model = build(task, method, adapter_of(config))
    trained = sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and not is_head(name, task))
    adapted = {name: part for name, part in model.named_modules() if isinstance(part, RandLoraLayer)}
    bases = {id(b): b for layer in adapted.values() for b in layer.randlora_bases.values()}
    bases_bytes = sum(b.stored_bytes() for b in bases.values())
    layers = [
        _inspect_layer(name, shapes, sum(math.prod(shape) for shape in shapes.values()), terms)
        for name, shapes, terms in ((name, *_shapes(layer)) for name, layer in adapted.items())
    ]
    title = f"{method.name}, bases {method.bases}" if adapted and "bases" in METHODS[method.name].keys else method.name
    return Inspection(
        f"{title}, in its search" if searches_ranks(config) else title,
        layers,
        sum(isinstance(part, BaseTunerLayer) for part in model.modules()),
        trained,
        4 * trained,
        bases_bytes,
        weights + _BYTES_PER_TRAINED * trained + bases_bytes,
        predict(config, task, model),
    )


def _with_data(config: TrainConfig) -> Task | None:
    """The task with its training data, where these are at hand and soon read."""
    given: Any = config.data.train
    sources = given if isinstance(given, list) else [given]
    names = [source if isinstance(source, str) else str(source.get("source", "")) for source in sources]
    at_hand = (name and is_local(name) and local(name).exists() for name in names)
    if not all(at_hand) or sum(local(name).stat().st_size for name in names) > _SOON_READ:
        return None
    task = TASKS[config.task](config.data, seed=config.seed)
    try:
        task.facts()
        if not any(local(name).is_dir() for name in names):  # of images, whose sizes are known
            task.fingerprint("train")
    except DataError:  # the run will say it
        return None
    return task


def _inspect_layer(name: str, shapes: Mapping[str, tuple[int, ...]], trained: int, terms: int) -> LayerInspection:
    """From the shapes of a layer's trained tensors, by name; the updates that are summed have the same bases."""
    rows, r = shapes["randlora_lambda"][-2:]
    bases_count = rows // terms
    small = shapes["randlora_gamma"][-1]
    lora_rank = shapes.get("randlora_lora_A", (0, 0))[-2]  # of a stack, that of each matrix
    return LayerInspection(name, r, bases_count, trained, min(small, r * bases_count + lora_rank))


def _loras(shapes: Mapping[str, tuple[int, ...]]) -> list[LayerInspection]:
    """LoRA's layers, from the shapes of A (r, in) and B (out, r)."""
    layers = []
    for name, (r, *inner) in sorted((name, shape) for name, shape in shapes.items() if name.endswith(_LORA_A)):
        layer = name.removesuffix(_LORA_A)
        trained = r * math.prod(inner) + math.prod(shapes.get(f"{layer}{_LORA_B}", (0,)))
        layers.append(LayerInspection(layer, r, None, trained, r))
    return layers


def _shapes(layer: RandLoraLayer) -> tuple[dict[str, tuple[int, ...]], int]:
    """Of a layer's trained tensors, by name, and how many updates are summed."""
    (adapter,) = layer.r
    shapes = {name: tuple(getattr(layer, name)[adapter].weight.shape) for name in layer.adapter_layer_names}
    return shapes, shapes["randlora_lambda"][-2] // layer.num_bases[adapter]
