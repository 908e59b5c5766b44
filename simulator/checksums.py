"""Computes the two checksums of the demonstration vehicle, for many frames at once.

Pure.  Each function takes `data` (n, length) uint8 and returns (n,) uint8.  The last byte of a frame is reserved for
the checksum, so its value is ignored.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray


def _crc8_table(polynomial: int) -> NDArray[np.uint8]:
    table = np.arange(256)
    for _ in range(8):
        table = (table << 1) ^ np.where(table & 0x80, 0x100 | polynomial, 0)
    return table.astype(np.uint8)


_SAE_J1850: Final = _crc8_table(0x1D)


def crc8_sae_j1850(can_id: int, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the CRC-8 SAE J1850 (polynomial 0x1D, start and final XOR 0xFF) of the identifier's low byte and data."""
    # The identifier is included, as AUTOSAR's E2E profiles include a data id, so that no message can be mistaken
    # for another one.
    crc: NDArray[np.uint8] = np.full(len(data), _SAE_J1850[0xFF ^ (can_id & 0xFF)], np.uint8)
    for column in data.T[:-1]:
        crc = _SAE_J1850[np.bitwise_xor(crc, column)]
    return np.invert(crc)


def sum8(can_id: int, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return Toyota's checksum: the sum of the identifier's two low bytes, the length and the data, modulo 256."""
    start = (can_id & 0xFF) + (can_id >> 8 & 0xFF) + data.shape[1]
    total: NDArray[np.int64] = data[:, :-1].sum(axis=1, dtype=np.int64) + start
    return (total & 0xFF).astype(np.uint8)
