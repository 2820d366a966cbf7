"""Ternary matrices at two bits per entry: a quarter of a byte, an eighth of bfloat16."""

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from randlora.errors import UpdateError

PER_BYTE = 4


def packed_length(length: int) -> int:
    """Bytes for so many entries."""
    return -(-length // PER_BYTE)


def pack_ternary(entries: Shaped[Tensor, "*rows length"]) -> UInt8[Tensor, "*rows bytes"]:
    """Pack the last dimension: entry 4·b + d in bits 2·d and 2·d + 1 of byte b, as a two's complement of two bits.

    The end of the last byte is filled with zeros, which add nothing to a product.

    Args:
        entries: -1, 0 and 1 in any dtype that has them; at least one dimension.

    Raises:
        UpdateError: An entry is something else.

    Example:
        >>> pack_ternary(torch.tensor([1, 0, -1, 0, 1]))
        tensor([49,  1], dtype=torch.uint8)
    """
    codes = entries.to(torch.int8)
    if not ((codes == entries) & (codes.abs() <= 1)).all():
        raise UpdateError("pack_ternary", expected="entries -1, 0 and 1", got="others", hint="round them first")
    missing = packed_length(entries.shape[-1]) * PER_BYTE - entries.shape[-1]
    digits = torch.nn.functional.pad(codes, (0, missing)).view(torch.uint8) & 3
    digits = digits.unflatten(-1, (packed_length(entries.shape[-1]), PER_BYTE))
    return digits[..., 0] | digits[..., 1] << 2 | digits[..., 2] << 4 | digits[..., 3] << 6


def unpack_ternary(
    packed: UInt8[Tensor, "*rows bytes"], length: int, dtype: torch.dtype
) -> Float[Tensor, "*rows length"]:
    """The inverse of `pack_ternary`, exact in every floating dtype.

    Args:
        packed: What `pack_ternary` returned.
        length: The length of the dimension that was packed.
        dtype: The dtype wanted.

    Raises:
        UpdateError: So many entries take another number of bytes.
    """
    if packed.shape[-1] != packed_length(length):
        raise UpdateError(
            "unpack_ternary", expected=f"{packed_length(length)} bytes for {length} entries", got=f"{packed.shape[-1]}"
        )
    shifts = torch.arange(0, 2 * PER_BYTE, 2, dtype=torch.uint8, device=packed.device)
    codes = packed[..., None] >> shifts & 3
    # 3 stands for -1. Two's complement of two bits: flip the upper one and take two off.
    entries = (codes ^ 2).view(torch.int8) - 2
    return entries.flatten(-2)[..., :length].to(dtype)
