"""The checksums of pages, of many at once (formats.md §9; `checksum_impl.h`): 32 hashes of each page, folded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LANES: Final = 32
_PRIME: Final = np.uint32(16777619)
_SHIFT: Final = np.uint32(17)
_MODULUS: Final = np.uint32(0xFFFF)
_CHECKSUM_WORD: Final = 2  # the checksum is the lower half of a page's third word, the flags the upper
_WITHOUT_CHECKSUM: Final = np.uint32(0xFFFF_0000)
_SEEDS: Final = np.array(
    [
        *(0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C),
        *(0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB),
        *(0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4),
        *(0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756),
    ],
    dtype=np.uint32,
)


def page_checksums(data: memoryview, block_numbers: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """Return what the checksum of each of these whole pages must be; `block_numbers` are theirs within their relations.

    It says nothing of a page that was never used. Fastest with some 4 MB at once: few calls, and what is computed
    (128 bytes of each page) still stays in the cache.
    """
    words = np.frombuffer(data, dtype="<u4").reshape(len(block_numbers), -1, _LANES)
    first_row = words[:, 0].copy()
    first_row[:, _CHECKSUM_WORD] &= _WITHOUT_CHECKSUM
    sums = _SEEDS ^ first_row
    scratch = np.empty_like(sums)
    _mix(sums, scratch)
    for row in range(1, words.shape[1]):
        np.bitwise_xor(sums, words[:, row], out=sums)
        _mix(sums, scratch)
    _mix(sums, scratch)
    _mix(sums, scratch)
    folded = np.bitwise_xor.reduce(sums, axis=1)
    folded ^= block_numbers
    checksums: NDArray[np.uint16] = (folded % _MODULUS + 1).astype(np.uint16)
    return checksums


def _mix(sums: NDArray[np.uint32], scratch: NDArray[np.uint32]) -> None:
    np.right_shift(sums, _SHIFT, out=scratch)
    np.multiply(sums, _PRIME, out=sums)
    np.bitwise_xor(sums, scratch, out=sums)
