"""The hash slot of a key in a cluster (Redis Cluster specification, "Key distribution model" and "Hash tags")."""

from __future__ import annotations

from binascii import crc_hqx
from typing import Final

SLOTS: Final = 16384


def slot_of(key: bytes) -> int:
    """CRC16 (XMODEM) of the hash tag, or of the whole key if it has none."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS
