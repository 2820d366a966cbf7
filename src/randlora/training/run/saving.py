"""What a run leaves: its adapter's folder, and a copy on the hub where the config asks for one."""

from pathlib import Path
from typing import Any

import huggingface_hub
from peft import PeftModel
from torch import Tensor, nn

from randlora.errors import OutputError
from randlora.formats import write_model_card
from randlora.tasks import Task
from randlora.training.config.method_table import METHODS
from randlora.training.config.sections import TrainConfig
from randlora.training.run.folder import RunFolder
from randlora.training.run.weights import folder_bytes, save_trained


def save_adapter(folder: RunFolder, config: TrainConfig, task: Task, trainer: Any) -> int:
    """Write `adapter/`: PEFT's format for its methods, the trained parameters alone for the others.

    Returns:
        Its bytes, without what the task puts beside it; 0 in a process that does not write.
    """
    # Shards are gathered on every process, though only one writes.
    state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if not trainer.args.should_save:
        return 0
    model = trainer.accelerator.unwrap_model(trainer.model)
    sizes: list[int] = []

    def write(path: Path) -> None:
        if config.method.name in METHODS:
            _write_adapter(model, path, state)
        else:
            save_trained(model, path, state)
        sizes.append(folder_bytes(path))
        task.save_beside(path)

    folder.save_adapter(write)
    return sizes[0]


def _write_adapter(model: nn.Module, path: Path, state: dict[str, Tensor] | None) -> None:
    prefix, adapted = next((name, part) for name, part in model.named_modules() if isinstance(part, PeftModel))
    if state is not None and prefix:
        state = {name.removeprefix(f"{prefix}."): tensor for name, tensor in state.items()}
    # DPO's trainer has put a copy of the start beside the adapter.
    adapted.save_pretrained(path, state_dict=state, selected_adapters=["default"])
    write_model_card(adapted, path)


def upload(config: TrainConfig, folder: RunFolder) -> None:
    """Upload the adapter of a finished run where the config asks for it.

    Raises:
        OutputError: It cannot be uploaded; the run stays finished, and the same command uploads it again.
    """
    if config.push_to_hub is None:
        return
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(config.push_to_hub, exist_ok=True)
        api.upload_folder(repo_id=config.push_to_hub, folder_path=folder.adapter)
    # The hub's client and the network raise several unrelated classes.
    except Exception as error:
        raise OutputError(
            "push_to_hub",
            expected=f"a repository '{config.push_to_hub}' that can be written",
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
            hint="log in with 'hf auth login'; the same command again uploads",
        ) from error
