"""One family of errors: each message names the thing, what was expected, what was found and what to do."""

from randlora.messages import printable


class RandLoraError(Exception):
    """Base of every error that randlora raises on purpose.

    The command-line tool prints it as one line and exits with code 2. What does not print (control characters in the
    names of files and labels) is written out in the message, and kept as it is in the attributes.

    Args:
        what: The thing that is wrong, by name (a layer, a file, a config key).
        expected: What would have been right.
        got: What was found.
        hint: What to do about it.

    Example:
        >>> from randlora import RandLoraConfig, RandLoraError
        >>> try:
        ...     RandLoraConfig(r=0)
        ... except RandLoraError as error:
        ...     print(error)
        r: expected an integer of 1 or more, got 0 (a smaller r trains more numbers)
    """

    def __init__(self, what: str, *, expected: str = "", got: str = "", hint: str = "") -> None:
        self.what, self.expected, self.got, self.hint = what, expected, got, hint
        message = what
        if expected:
            message += f": expected {expected}"
        if got:
            message += f"{', ' if expected else ': '}got {got}"
        if hint:
            message += f" ({hint})"
        super().__init__(printable(" ".join(message.split())))


class ConfigError(RandLoraError, ValueError):
    """A configuration value is unknown, of the wrong type, out of range or in conflict with another."""


class LayerError(RandLoraError, ValueError):
    """A layer cannot be adapted, or no layer matches."""


class CheckpointError(RandLoraError, ValueError):
    """An adapter on disk is damaged, foreign, or made for another model or other bases."""


class DataError(RandLoraError, ValueError):
    """A data set is missing, empty or not in the form the task expects."""


class OutputError(RandLoraError, OSError):
    """An output folder cannot be written or holds something else."""


class DeviceError(RandLoraError, RuntimeError):
    """The hardware or the installed software cannot do what was asked for."""


class UpdateError(RandLoraError, RuntimeError):
    """An update was asked for in a mode or with shapes that it does not support."""


class TrainingError(RandLoraError, ArithmeticError):
    """A training has diverged: a loss or a trained number is not finite."""


_OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Words of PyTorch's, which has a class for a GPU's own allocator alone."""


def out_of_memory(error: BaseException) -> str | None:
    """What to say of an error that is, or came of, a lack of memory; None for any other.

    Args:
        error: The error. What wraps another one names something else as its cause, such as a model that cannot be read.
    """
    cause: BaseException | None = error
    while cause is not None and not _is_lack_of_memory(cause):
        cause = cause.__cause__
    if cause is None:
        return None
    sentences = " ".join(str(cause).split()).split(". ")
    hint = "in a training, a smaller optimization.batch_size with gradient_accumulation_steps, gradient_checkpointing "
    hint += "or quantization takes less; `randlora inspect CONFIG` predicts how much"
    return str(RandLoraError("out of memory", got=". ".join(sentences[:3]), hint=hint))


def _is_lack_of_memory(error: BaseException) -> bool:
    words = isinstance(error, RuntimeError) and any(part in str(error) for part in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or words
