"""What the Trainer is told to do beside training: show progress, tell the data the epoch, stop early."""

from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from randlora.tasks.bars import progress_bar
from randlora.training.run.memory import current_bytes


class ProgressBar(TrainerCallback):
    """One bar for the training with loss, learning rate and memory, one for each evaluation."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._evaluation: tqdm[Any] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar, at the step the run resumes from."""
        del args, control
        if state.is_world_process_zero:
            self._bar = progress_bar("training", "step", total=state.max_steps, initial=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        del args, control
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show the latest loss, learning rate and memory."""
        del state, control
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix_str(
                f"loss {logs['loss']:.4f}, lr {logs['learning_rate']:.1e}, "
                f"memory {current_bytes(args.device) / 2**30:.2f} GiB",
                refresh=False,
            )

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Move the bar of an evaluation, which is there from its first batch on."""
        del args, control
        if not state.is_world_process_zero:
            return
        if self._evaluation is None:
            total = len(eval_dataloader) if hasattr(eval_dataloader, "__len__") else None
            self._evaluation = progress_bar("evaluation", "batch", total=total, leave=False)
        self._evaluation.update()

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Take the bar of an evaluation away."""
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class FirstAct(TrainerCallback):
    """Does something when the model lies where it is trained, before the first step."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Do it."""
        self.act()


class EpochOfData(TrainerCallback):
    """Tells the training data the epoch, so that augmentation depends on seed, epoch and row alone.

    A resumed run then sees the images an uninterrupted one would have seen.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Pass the epoch on."""
        del args, control
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(int(state.epoch or 0))


class EarlyStopping(EarlyStoppingCallback):
    """The Trainer's, which a resumed run goes on counting: the Trainer itself would be patient anew."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the count of the checkpoint that the run resumes from."""
        super().on_train_begin(args, state, control)
        saved = state.stateful_callbacks.get(type(self).__name__)
        if isinstance(saved, dict):
            self.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"]
