"""The wire of a relay over TCP: who is there, numbered frames of whole lines, and their acknowledgements.

::

    driver: nonce (32 bytes)
    worker: MAGIC, id (16), nonce (32), HMAC-SHA256(token, "worker", both nonces, id)
    driver: HMAC-SHA256(token, "driver", both nonces, id)
    worker: sequence number (8), length (4), that many bytes of whole JSON lines
    driver: the number that it has taken (8, signed); PULSE while it has no room, CLOSED once it is done

A frame is in flight at a time, so the next one grows meanwhile. The token never travels here; without
it neither side gets further than its proof. Nothing is pickled, and every length has a bound.
"""

from __future__ import annotations

import hmac
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

MAGIC = b"dagsterpipes-1\n\0"
NONCE_SIZE = 32
ID_SIZE = 16
PROOF_SIZE = 32
HEAD = struct.Struct(">QI")
ACK = struct.Struct(">q")
PULSE = 0
CLOSED = -1

FRAME_SIZE = 1 << 20
"""Bytes of lines in a frame, unless its only line is longer."""

MOST = 64 << 20
"""Bytes of the longest line that may be sent."""


def cut(lines: bytes) -> Iterator[bytes]:
    """Cut at line breaks into frames."""
    start = 0
    while len(lines) - start > FRAME_SIZE:
        end = lines.rfind(b"\n", start, start + FRAME_SIZE) + 1
        if end <= start:  # a line that is longer by itself
            end = lines.index(b"\n", start) + 1
        yield lines[start:end]
        start = end
    if start < len(lines):
        yield lines[start:]


def proof(token: bytes, role: bytes, *parts: bytes) -> bytes:
    """What only somebody with the token can say."""
    return hmac.digest(token, b"\0".join((MAGIC, role, *parts)), "sha256")


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes.

    Raises:
        ConnectionError: The other side closed the connection before.
        OSError: The connection broke, or nothing came in time.
    """
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = connection.recv_into(rest)
        if count == 0:
            raise ConnectionResetError("the other side closed the connection")
        rest = rest[count:]
    return bytes(data)
