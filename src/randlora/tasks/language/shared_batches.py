"""The batches of a data set that a process of TRL's trainers scores."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from randlora.tasks.shares import Share, shares


def shared_batches(trainer: Any, dataset: Any) -> Iterator[tuple[nn.Module, Any, Share]]:
    """Go through data, with the trainer's progress bar, autocast and model in evaluation mode.

    Whoever scores turns gradients off: what a generator turns off is on again where its values are used.

    Args:
        trainer: The trainer; without processes beside it, all examples are its own.
        dataset: The data; None takes those the trainer was made with.

    Yields:
        The model, a batch on its device, and what it is of the data.
    """
    data = trainer.eval_dataset if dataset is None else dataset
    accelerator, arguments = trainer.accelerator, trainer.args
    plan = shares(len(data), arguments.per_device_eval_batch_size, accelerator.num_processes, accelerator.process_index)
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_sampler=[share.rows for share in plan],
        collate_fn=trainer.data_collator,
        num_workers=arguments.dataloader_num_workers,
    )
    trainer.callback_handler.eval_dataloader = loader
    model = trainer._wrap_model(trainer.model, training=False)
    model.eval()
    for batch, share in zip(loader, plan, strict=True):
        with trainer.compute_loss_context_manager():
            yield model, trainer._prepare_inputs(batch), share
        trainer.control = trainer.callback_handler.on_prediction_step(arguments, trainer.state, trainer.control)
