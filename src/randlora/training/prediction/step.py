"""The step of a run that takes the most memory, taken on tensors without numbers by the run's own Trainer."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from randlora.adapter.base_layer import AdapterLayer
from randlora.tasks import Task
from randlora.training.config.sections import TrainConfig
from randlora.training.methods import is_head
from randlora.training.prediction.live import LiveMemory
from randlora.training.run.arguments import training_arguments
from randlora.training.run.memory import current_bytes, reset_peak
from randlora.training.run.progress import Progress
from randlora.training.run.trainer import run_trainer

_FIRST_STEP = 2**25
"""Bytes that libraries take in a process's first step and keep: code that is loaded then, and buffers of theirs."""

_HEAP = 1.25
"""What glibc's heap holds over what is in use of it. SmolLM2's steps of 256 to 2,048 tokens made it 1.2 to 1.4; with a
MALLOC_MMAP_THRESHOLD_ of 65,536, which gives every tensor back to the system at once, it is 1.0 (docs/performance.md).
"""

_PAGE = 4096


@dataclass(frozen=True)
class Prediction:
    """What a run's `peak_memory_bytes` is expected to be.

    Attributes:
        peak_bytes: Of a GPU's allocator, or, on a CPU, of the whole process; None where the step cannot be followed.
        step_bytes: Of these, what a step allocates: activations, gradients and the optimizer's state.
        assumed: The batch that it holds for, in words; or why there is none.
    """

    peak_bytes: int | None
    step_bytes: int | None
    assumed: str


def predict(config: TrainConfig, task: Task, model: nn.Module) -> Prediction:
    """Follow the largest step of a run: forward, backward and optimizer, with nothing computed.

    What the process holds is measured, the rest counted, operation by operation; on a CPU with an allowance for the
    heap. Evaluations during training, and several processes, are not followed.

    Args:
        config: The run's config, resolved.
        task: Its task with its model loaded.
        model: The model as it is trained. Its numbers are gone afterwards. On the device "meta" it has none, and counts
            with the memory that it would take.
    """
    optimization = config.optimization
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    passes = min(2, optimization.gradient_accumulation_steps)  # from the second on, gradients are there already
    with TemporaryDirectory() as folder:
        arguments = training_arguments(config, task, Path(folder))
        rows, assumed = task.largest(passes * arguments.per_device_train_batch_size)
        weights = _in_place_of_meta(model, fakes, arguments.device)
        trainer_class, _ = task.trainer_classes()
        inputs = {"train_dataset": rows, "eval_dataset": rows, **task.inputs()}
        trainer = run_trainer(trainer_class)(model=model, args=arguments, **inputs)
        trainer.begin(Progress(""), is_head=partial(is_head, task=task), optimization=optimization)
        try:
            resident, states, peak = _follow(trainer, passes, fakes)
        except Exception as error:  # noqa: BLE001 - whatever code a model brings may ask a tensor for its numbers
            lines = str(error).strip().splitlines() or [""]
            return Prediction(None, None, f"the step cannot be followed: {type(error).__name__}: {lines[0]}")
    if arguments.device.type == "cpu":
        peak = states + round((1.0 if _gives_back_at_once() else _HEAP) * (peak - states))
        resident += _FIRST_STEP
    return Prediction(resident + weights + peak, peak, assumed)


def _in_place_of_meta(model: nn.Module, fakes: FakeTensorMode, device: torch.device) -> int:
    """Put fakes on a device in the place of tensors on "meta", draw the bases, and say how many bytes fakes take."""
    sizes = list[int]()

    def fake(tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor.to(device)
        with fakes:
            made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        sizes.append(made.untyped_storage().nbytes())
        return made

    if not any(tensor.is_meta for tensor in model.parameters()):
        return 0
    _replace(model, lambda tensor: tensor.is_meta or tensor.device != device, fake)
    model.__dict__["to"] = lambda *_, **__: model  # all is where it is to be, and fakes cannot be swapped
    for module in model.modules():
        if isinstance(module, AdapterLayer):
            module.prepare_bases()
    return sum(sizes)


def _follow(trainer: Any, passes: int, fakes: FakeTensorMode) -> tuple[int, int, int]:
    """Bytes resident before the first step, of the optimizer's state, and most that the second step holds with it."""
    device = trainer.args.device
    model = trainer.accelerator.prepare_model(trainer.model)
    batches, items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), passes, device)
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    for tensor in (*trainer.model.parameters(), *trainer.model.buffers()):
        _touch(tensor)
    reset_peak(device)
    resident = current_bytes(device)
    _replace(trainer.model, _has_numbers, lambda tensor: fakes.from_tensor(tensor.detach()))
    trainer.create_optimizer()
    with LiveMemory(fakes) as live:
        for parameter in trainer.model.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        states, live.peak = live.held, live.held
        for batch in batches:
            trainer.training_step(model, batch, items)
        if trainer.args.max_grad_norm:
            trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
    return resident, states, live.peak


def _touch(tensor: Tensor) -> None:
    """Read a byte of every page: weights that lie in a file are resident once they are used."""
    if type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.is_contiguous():
        tensor.detach().view(-1).view(torch.uint8)[::_PAGE].sum()


def _has_numbers(tensor: Tensor) -> bool:
    """Whether a tensor is a plain one with a fraction; quantized ones stay as they are."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.is_floating_point()


def _replace(model: nn.Module, chosen: Callable[[Tensor], bool], fake: Callable[[Tensor], Tensor]) -> None:
    """Put a fake in the place of every chosen parameter and buffer."""
    known: dict[int, Any] = {}  # tied parameters stay tied
    for module in model.modules():
        tables: list[Any] = [module._parameters, module._buffers]
        for held in tables:
            for name, tensor in held.items():
                if tensor is None or not chosen(tensor):
                    continue
                if id(tensor) not in known:
                    made = fake(tensor)
                    known[id(tensor)] = nn.Parameter(made, tensor.requires_grad) if held is module._parameters else made
                held[name] = known[id(tensor)]


def _gives_back_at_once() -> bool:
    threshold = os.environ.get("MALLOC_MMAP_THRESHOLD_", "")
    return threshold.isdecimal() and int(threshold) <= 2**17
