"""The checksums match their published check value and a byte-by-byte computation."""

import numpy as np

from simulator.checksums import crc8_sae_j1850, sum8


def test_crc8_gives_the_check_value_of_the_catalogue() -> None:
    data = np.frombuffer(b"23456789\0", np.uint8)[None, :]
    assert crc8_sae_j1850(ord("1"), data)[0] == 0x4B  # CRC-8/SAE-J1850 of "123456789"


def test_crc8_is_one_per_frame_and_ignores_its_own_byte() -> None:
    frames = (b"23456789\x00", b"23456789\x7f", b"23456780\x00")
    data = np.frombuffer(b"".join(frames), np.uint8).reshape(3, 9)
    first, second, third = crc8_sae_j1850(ord("1"), data)
    assert first == second != third


def test_sum8_adds_identifier_length_and_data() -> None:
    data = np.array([[0xF0, 0x20, 0x99]], np.uint8)
    assert sum8(0x214, data)[0] == (0x02 + 0x14 + 3 + 0xF0 + 0x20) % 256
