"""What a run adds to a task's Trainer: checkpoints of the trained numbers, a learning rate for the head, figures."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from randlora.adapter.quantized import keep_unsent
from randlora.errors import ConfigError, TrainingError
from randlora.methods.prompts.transfer import HEAD_RATE, find_transfer
from randlora.tasks.shares import own_rows
from randlora.tasks.task import NOT_METRICS
from randlora.training.config.sections import OptimizationConfig
from randlora.training.run.adalora import RankBudget, find_adalora, orthogonality, without_own_penalty
from randlora.training.run.callbacks import EarlyStopping, EpochOfData, ProgressBar
from randlora.training.run.checkpoints import has_stopped
from randlora.training.run.epoch_average import EpochAverage, find_averaged
from randlora.training.run.progress import Progress
from randlora.training.run.stopwatch import Stopwatch
from randlora.training.run.weights import FILE_NAME, load_trained, save_trained


class LengthGroups(LengthGroupedSampler):
    """Batches of similar lengths in an order of seed and epoch alone, which a resumed run finds again.

    Args:
        batch_size: Examples per optimizer step.
        lengths: Of every example.
        seed: Seed of the order.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Fix the order of an epoch; accelerate calls this before each."""
        self.generator.manual_seed(self.seed + epoch)


class RunTrainer(Trainer):
    """What every run asks of its Trainer, for whichever class of Trainer the task has; see `run_trainer`."""

    progress: Progress
    is_head: Callable[[str], bool]
    head_learning_rate: float | None
    stopped = False
    """Whether the training was resumed from its own end."""
    scoring = False
    """While a batch is scored; the model's mode does not say it: the first batch after a score is drawn in its mode."""

    def begin(
        self, progress: Progress, *, is_head: Callable[[str], bool], optimization: OptimizationConfig | None = None
    ) -> None:
        """Take what the Trainer of the task does not know; to be called once, before training.

        Args:
            progress: Measurements so far; the training adds to them.
            is_head: Whether a parameter, by name, belongs to the head.
            optimization: The config's section; None for a Trainer that only evaluates.
        """
        self.progress, self.is_head = progress, is_head
        self.head_learning_rate = optimization.head_learning_rate if optimization else None
        self.stopwatch = Stopwatch(progress)
        for shown_otherwise in (ProgressCallback, PrinterCallback):
            self.remove_callback(shown_otherwise)
        for callback in (self.stopwatch, ProgressBar(), EpochOfData(self.train_dataset)):
            self.add_callback(callback)
        if optimization and optimization.early_stopping:
            self.add_callback(EarlyStopping(optimization.early_stopping))
        without_own_penalty(self.model)
        keep_unsent(self.model)
        self.adalora = find_adalora(self.model)
        if self.adalora is not None:
            self.add_callback(RankBudget(self.adalora))
        averaged = find_averaged(self.model)
        if averaged is not None and optimization is not None:
            self.add_callback(EpochAverage(averaged))

    def train(self, resume_from_checkpoint: str | None = None, **rest: Any) -> Any:
        """The Trainer's; a checkpoint of the training's end is loaded and nothing more done."""
        self.stopped = resume_from_checkpoint is not None and has_stopped(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, **rest)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """The Trainer's, which would take a step more where the last was not an epoch's last."""
        if self.stopped:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The Trainer's, without LoRA's copies of its inputs.

        PEFT casts the input of a LoRA in float32 to float32, and autocast casts it back for the product: to the same
        bits, at the price of a copy that is four bytes wide and of its gradient. (Dropout between the two draws by the
        dtype, so that with it the bits are others.)
        """
        layers = [part for part in self.model.modules() if isinstance(part, LoraLayer)]
        before = [layer.cast_input_dtype_enabled for layer in layers]
        try:
            for layer in layers:
                layer.cast_input_dtype_enabled = not (self.args.bf16 or self.args.fp16)
            loss: Tensor = super().training_step(*args, **kwargs)
        finally:
            for layer, enabled in zip(layers, before, strict=True):
                layer.cast_input_dtype_enabled = enabled
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loss; while AdaLoRA is trained, with its penalty."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.adalora is None or not model.training:
            return loss
        # The loss is already the share of this forward pass in the accumulated batch.
        return loss + orthogonality(self.adalora) / self.current_gradient_accumulation_steps

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            return LengthGroups(sampler.batch_size, sampler.lengths, self.args.seed)
        return sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        # Tasks of texts have them by length already. The Trainer's own groups mix a few hundred texts of all lengths,
        # and draw them from the random numbers of the training.
        return SequentialSampler(eval_dataset)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with the head's parameters in groups of their own learning rate."""
        optimizer = super().create_optimizer(model)
        trained = self.model if model is None else model
        rate, transfer = self.head_learning_rate, find_transfer(trained)
        if rate is None and transfer is None:
            return optimizer
        head = {id(parameter) for name, parameter in trained.named_parameters() if self.is_head(name)}
        if transfer is not None:
            head |= {id(parameter) for parameter in transfer.parameters()}
            rate = HEAD_RATE * self.args.learning_rate if rate is None else rate
        for group in list(optimizer.param_groups):
            apart = [parameter for parameter in group["params"] if id(parameter) in head]
            if apart:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in head]
                optimizer.add_param_group({**group, "params": apart, "lr": rate})
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """The Trainer's, without a warmup where there is one step, which it would give the rate 0."""
        if num_training_steps == 1:
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The Trainer's, without its time in that of the training."""
        with self.stopwatch.paused():
            found: dict[str, float] = super().evaluate(*args, **kwargs)
        return found

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """The Trainer's; a batch that is scored is not divided by what other processes score.

        Among numbers to predict, -100 is one like others, and not the mark of a label that does not count.
        """
        labels = [batch.get("labels") for batch in batch_samples]
        if all(torch.is_tensor(part) and part.is_floating_point() for part in labels):
            batch_samples = [{"labels": torch.zeros_like(part)} for part in labels]
        return None if self.scoring else super()._get_num_items_in_batch(batch_samples, device)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's; the loss is that of the examples which no other process has."""
        rows = own_rows(self.accelerator, len(inputs["labels"]))
        self.scoring = True
        try:
            loss, logits, labels = super().prediction_step(model, inputs, *args, **kwargs)
            if rows is not None:
                # Where all are repetitions the loss is not asked, but a sharded model needs this process to run too.
                own = {name: value[: max(rows, 1)] for name, value in inputs.items()}
                loss, _, _ = super().prediction_step(model, own, *args, **kwargs)
        finally:
            self.scoring = False
        return loss, logits, labels

    def count_trained(self) -> tuple[int, int]:
        """Trained numbers of the method and of the head; to be asked before training, which may shard them."""
        trained = [(name, part.numel()) for name, part in self.model.named_parameters() if part.requires_grad]
        head = sum(count for name, count in trained if self.is_head(name))
        return sum(count for _, count in trained) - head, head

    def mean_train_loss(self) -> float:
        """Mean loss over all steps of the run, those before an interruption included."""
        total, last = 0.0, 0
        for entry in self.state.log_history:
            if "loss" in entry:
                total += entry["loss"] * (entry["step"] - last)
                last = entry["step"]
        return total / last if last else math.nan

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """What a checkpoint holds of the model: the trained parameters, whatever the method."""
        if self.args.should_save:
            save_trained(self.model, Path(output_dir or self.args.output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled and not (Path(resume_from_checkpoint) / FILE_NAME).is_file():  # it is in shards
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        load_trained(self.model, Path(str(self.state.best_model_checkpoint)))

    def history(self) -> list[dict[str, float]]:
        """What was logged, step by step: loss, learning rate, scores on the validation split."""
        kept = []
        for entry in self.state.log_history:
            own = {name: value for name, value in entry.items() if not name.endswith(NOT_METRICS)}
            if "loss" in own or any(name.startswith("eval_") for name in own):
                kept.append({name.replace("eval_", "validation_", 1): value for name, value in own.items()})
        return kept

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The Trainer's, where the loss is a number to go on with."""
        if "loss" in logs:
            self.require_finite({"loss": logs["loss"]})
        super().log(logs, *args, **kwargs)

    def require_finite(self, losses: dict[str, float]) -> None:
        """Stop a run that has diverged: a loss, or a trained number, that is not finite.

        Args:
            losses: What they are called -> their values.

        Raises:
            ConfigError: The base model holds such numbers itself.
            TrainingError: One is not.
        """
        found = {name: f"{value}" for name, value in losses.items() if not math.isfinite(value)}
        trained = ((name, part) for name, part in self.model.named_parameters() if part.requires_grad)
        found |= {name: "NaN or infinity" for name, part in trained if not torch.isfinite(part).all()}
        for name, value in found.items():
            self._require_finite_base()
            raise TrainingError(
                f"{name} after step {self.state.global_step}",
                expected="a finite number",
                got=value,
                hint=f"the training diverged; lower optimization.learning_rate, now {self.args.learning_rate:g}",
            )

    def _require_finite_base(self) -> None:
        """Tell a base model that came with NaN from a training that diverged; asked afterwards, as it takes time."""
        for name, part in self.model.named_parameters():
            plain = type(part) is nn.Parameter and part.is_floating_point()  # those of a quantized layer are not asked
            if plain and not part.requires_grad and not torch.isfinite(part).all():
                hint = "copy or download the model again"
                raise ConfigError("model", expected="finite weights", got=f"NaN or infinity in {name}", hint=hint)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.require_finite({})
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process has files of its own, which the last one lists
        if self.args.should_save:
            self.stopwatch.lap()
            self.progress.save(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")


def run_trainer(kind: type[Trainer], asked: type[RunTrainer] = RunTrainer) -> Any:
    """A class of Trainer that does what a run asks, and is otherwise the task's.

    Args:
        kind: The task's `trainer_class`.
        asked: What is asked.
    """
    return asked if kind is Trainer else type(f"Run{kind.__name__}", (asked, kind), {})
