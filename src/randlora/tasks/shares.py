"""Which examples each process of a distributed run scores, so that each counts once."""

from typing import Any, NamedTuple


class Share(NamedTuple):
    """A batch of a process.

    Attributes:
        rows: The rows that it scores.
        weight: Of each in a sum over all processes.
    """

    rows: list[int]
    weight: float


def shares(examples: int, batch_size: int, processes: int, index: int) -> list[Share]:
    """A process's batches: as many as every other has, since sharded models are gathered together.

    Batches are whole while they can be, then smaller. The rows that are fewer than the processes come last: all score
    the same.

    Args:
        examples: Number of examples.
        batch_size: Examples of a batch of one process.
        processes: Number of processes.
        index: This one's number.

    Example:
        >>> [tuple(share) for share in shares(7, 2, 2, 0)]
        [([0, 1], 1.0), ([4], 1.0), ([6], 0.5)]
        >>> [tuple(share) for share in shares(7, 2, 2, 1)]
        [([2, 3], 1.0), ([5], 1.0), ([6], 0.5)]
    """
    found: list[Share] = []
    start = 0
    while start < examples:
        size = min(batch_size, (examples - start) // processes)
        if size == 0:
            found.append(Share(list(range(start, examples)), 1 / processes))
            break
        first = start + index * size
        found.append(Share(list(range(first, first + size)), 1.0))
        start += size * processes
    return found


def own_rows(accelerator: Any, rows: int) -> int | None:
    """First rows of a batch that count: accelerate fills the last ones up with examples that were there before.

    Args:
        accelerator: That which made the batch's loader.
        rows: Rows of the batch, the same in every process.

    Returns:
        Their number; None where all rows of all processes count.
    """
    loader = accelerator.gradient_state
    if not loader.end_of_dataloader or loader.remainder in (-1, 0, rows * accelerator.num_processes):
        return None
    return int(min(max(loader.remainder - accelerator.process_index * rows, 0), rows))
