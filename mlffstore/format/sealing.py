"""Sealed JSON, as log entries, checkpoints and histories are: the last member is the CRC-32C of the bytes before it."""

from __future__ import annotations

import numpy as np

from mlffstore.format.codec import crc32c, extend_crc32c


def seal(head: bytes) -> bytes:
    """Return a JSON object, given without its last brace, with its checksum."""
    return head + b',"crc32c":%d}\n' % crc32c(head)


def sealed_nbytes(data: bytes) -> int | None:
    """Return how many bytes of a sealed object `seal` was given; None if the checksum is wrong."""
    end = data.rfind(b',"crc32c":', -40)
    # Of many megabytes no copy is made.
    if end < 0 or data[end:] != b',"crc32c":%d}\n' % extend_crc32c(0, np.frombuffer(data, np.uint8, end)):
        return None
    return end
