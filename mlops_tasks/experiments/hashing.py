"""Positions of units: the same in every process, on every machine and in every release.

SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012) of a unit's name under a key that is made
from a salt. Positions under different salts are independent of each other.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numba import types
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.kernels import inner, kernel

SPACE = 1_000_000
"""Number of positions; a share of traffic is a whole number of them."""

_BYTES, _OFFSETS, _WORDS = types.Array(types.uint8, 1, "C", readonly=True), types.int64[::1], types.uint64[::1]


def positions(salt: str, units: Sequence[str]) -> NDArray[np.int64]:
    """The position of each unit under a salt, from 0 to `SPACE` - 1; shape (units,).

    Raises
    ------
    ExperimentError
        A unit is missing, empty or not text.
    """
    return (unit_hashes(key_of(salt), units) % np.uint64(SPACE)).astype(np.int64)


def key_of(salt: str) -> bytes:
    """The key of a salt, 16 bytes."""
    return blake2b(salt.encode(), digest_size=16, person=b"alphaops").digest()


def unit_hashes(key: bytes, units: Sequence[str]) -> NDArray[np.uint64]:
    """SipHash-2-4 of each unit's UTF-8 text under a key of 16 bytes. Errors as for `positions`."""
    try:
        text = pa.array(units, pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ExperimentError(f"units: {error}; give each unit's name as text") from None
    offsets = np.frombuffer(text.buffers()[1], np.int64, len(text) + 1) if len(text) else np.zeros(1, np.int64)
    missing = np.flatnonzero(np.diff(offsets) == 0)
    if len(missing):
        raise ExperimentError(f"units: row {missing[0]} has no name; a unit without a name cannot be assigned")
    data = text.buffers()[2]
    raw = np.frombuffer(data if data is not None else b"", np.uint8)
    raw.flags.writeable = False  # as the kernel's type says; some of Arrow's buffers may be written
    hashes = np.empty(len(text), np.uint64)
    _siphash(raw, np.ascontiguousarray(offsets).copy(), np.frombuffer(key, "<u8").copy(), hashes)
    return hashes


@inner
def _rotated(word: np.uint64, bits: int) -> np.uint64:
    return np.uint64((word << np.uint64(bits)) | (word >> np.uint64(64 - bits)))


@inner
def _rounds(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64, n: int
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    for _ in range(n):
        v0 += v1
        v1 = _rotated(v1, 13) ^ v0
        v0 = _rotated(v0, 32)
        v2 += v3
        v3 = _rotated(v3, 16) ^ v2
        v0 += v3
        v3 = _rotated(v3, 21) ^ v0
        v2 += v1
        v1 = _rotated(v1, 17) ^ v2
        v2 = _rotated(v2, 32)
    return v0, v1, v2, v3


@kernel(_BYTES, _OFFSETS, _WORDS, _WORDS)
def _siphash(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], key: NDArray[np.uint64], hashes: NDArray[np.uint64]
) -> None:
    """Write the hash of the bytes between each pair of neighbouring offsets into `hashes`."""
    for row in range(len(hashes)):
        first, end = offsets[row], offsets[row + 1]
        v0, v1 = key[0] ^ np.uint64(0x736F6D6570736575), key[1] ^ np.uint64(0x646F72616E646F6D)
        v2, v3 = key[0] ^ np.uint64(0x6C7967656E657261), key[1] ^ np.uint64(0x7465646279746573)
        word = np.uint64(0)
        for at in range(first, end):
            place = (at - first) & 7
            word |= np.uint64(data[at]) << np.uint64(8 * place)
            if place == 7:
                v3 ^= word
                v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 2)
                v0 ^= word
                word = np.uint64(0)
        word |= np.uint64((end - first) & 255) << np.uint64(56)
        v3 ^= word
        v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 2)
        v0 ^= word
        v2 ^= np.uint64(255)
        v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 4)
        hashes[row] = v0 ^ v1 ^ v2 ^ v3
