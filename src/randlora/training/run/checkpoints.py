"""Whether a checkpoint is whole: its last file lists the others, with sizes and digests; whether it is the last."""

import json
from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from randlora.files import digest

FILE_NAME = "progress.json"
"""Written last into a checkpoint: a checkpoint without it was cut short and must not be used."""

FILES = "files"
"""Key of the list in the last file."""


def list_files(checkpoint: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file of a checkpoint but the list's own."""
    names = sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())
    return {name: digest(checkpoint / name) for name in names if name != FILE_NAME and not name.endswith(".tmp")}


def damage(checkpoint: Path) -> str | None:
    """What keeps a checkpoint from being used, in words; None where it is whole."""
    try:
        listed = json.loads((checkpoint / FILE_NAME).read_text(encoding="utf-8"))[FILES]
        found = list_files(checkpoint)
    except FileNotFoundError:
        return "it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {FILE_NAME} cannot be read ({type(error).__name__}: {error})"
    for name in sorted({*listed, *found}) if isinstance(listed, dict) else [FILE_NAME]:
        if name not in found:
            return f"{name} is missing"
        if found[name] != listed.get(name):
            return f"{name} is not what was written"
    return None


def has_stopped(checkpoint: Path) -> bool:
    """Whether a checkpoint is the training's last: of its last step, or of an early stop."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    control: Any = state.stateful_callbacks.get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop"))
