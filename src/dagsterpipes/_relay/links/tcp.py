"""Frames over TCP, for engines that have no channel of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import threading
import time
import weakref
from hmac import compare_digest
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from dagsterpipes._relay.frames import (
    ACK,
    CLOSED,
    HEAD,
    ID_SIZE,
    MAGIC,
    MOST,
    NONCE_SIZE,
    PROOF_SIZE,
    PULSE,
    proof,
    receive,
)
from dagsterpipes._session.process import ForkHooks, add_fork_hooks
from dagsterpipes.exceptions import ChannelError, SessionClosedError

if TYPE_CHECKING:
    from dagsterpipes._relay.driver import Hub

PULSE_INTERVAL = 1.0
"""Seconds between two signs of life of a driver that has no room."""

SILENCE = 5.0
"""Seconds without a sign of life after which the other side counts as gone."""

LINGER = 10.0
"""Seconds for which late workers are told that the driver is done."""


class _Place(NamedTuple):
    host: str
    port: int
    token: bytes


class TcpAddress(_Place):
    """Where the driver listens, and the token that proves that a worker belongs to it."""

    __slots__ = ()

    flush_interval = 0.02
    needs_function = False

    def connect(self, worker: bytes) -> TcpLink:
        """The link of one worker; nothing is connected before its first frame."""
        return TcpLink(self, worker)

    def worker_name(self) -> str:
        """The host and the process."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def __repr__(self) -> str:
        return f"TcpAddress({self.host!r}, {self.port}, a token)"


class TcpLink:
    """A worker's connection to the driver, made again after each failure."""

    def __init__(self, address: TcpAddress, worker: bytes) -> None:
        self._address = address
        self._worker = worker
        self._connection: socket.socket | None = None

    def send(self, seq: int, lines: bytes) -> None:
        """Send a frame and wait until the driver has taken it; see `Link`."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            taken = self._exchange(self._connection, seq, lines)
        except BaseException:
            self.close()
            raise
        if taken == CLOSED:
            self.close()
            raise SessionClosedError("the driver has closed the relay")
        if taken != seq:
            self.close()
            raise OSError(f"the driver acknowledged frame {taken} instead of {seq}")

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(self, connection: socket.socket, seq: int, lines: bytes) -> int:
        # What nobody asked for says that the driver is done, or gone.
        if _is_readable(connection):
            (taken,) = ACK.unpack(receive(connection, ACK.size))
            return int(taken)
        rest = memoryview(HEAD.pack(seq, len(lines)) + lines)
        while rest:
            rest = rest[connection.send(rest) :]
        taken = PULSE
        while taken == PULSE:
            (taken,) = ACK.unpack(receive(connection, ACK.size))
        return int(taken)

    def _connect(self) -> socket.socket:
        host, port, token = self._address
        connection = socket.create_connection((host, port), timeout=SILENCE)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            its_nonce = receive(connection, NONCE_SIZE)
            nonce = secrets.token_bytes(NONCE_SIZE)
            parts = its_nonce, nonce, self._worker
            connection.sendall(MAGIC + self._worker + nonce + proof(token, b"worker", *parts))
            answer = receive(connection, PROOF_SIZE)
        except BaseException:
            connection.close()
            raise
        if not compare_digest(answer, proof(token, b"driver", *parts)):
            connection.close()
            raise SessionClosedError(f"{host}:{port} is not the driver of this relay")
        return connection


def _is_readable(connection: socket.socket) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([connection], [], [], 0)[0])
    poll = select.poll()  # as select() takes no descriptor above 1,023
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


class _Connection:
    """The driver's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        # Held from the head of a frame to its acknowledgement.
        self.busy = threading.Lock()
        # Whether a frame waits for its acknowledgement; `_writing` guards it.
        self.is_taking = False
        self._writing = threading.Lock()
        self.worker: bytes | None = None

    def say(self, value: int) -> None:
        """Answer a frame, or say that there will be no more answers."""
        with self._writing, contextlib.suppress(OSError):
            self.is_taking = False
            self.socket.sendall(ACK.pack(value))

    def pulse(self) -> None:
        """Give a sign of life, but none behind the answer: a worker would take it for that of its next frame."""
        with self._writing, contextlib.suppress(OSError):
            if self.is_taking:
                self.socket.sendall(ACK.pack(PULSE))


class TcpStation:
    """Listens for workers; one thread for each.

    Args:
        where: ``tcp://HOST[:PORT]``, the address of this machine by which workers reach it.
        hub: Takes the frames.

    Raises:
        ValueError: ``where`` is no such address.
        ChannelError: Nothing can listen there.
    """

    def __init__(self, where: str, hub: Hub) -> None:
        host, port = _parse(where)
        self._hub = hub
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._listener = socket.create_server((host, port), family=family, backlog=1024)
        except OSError as error:
            raise ChannelError(
                f"relay(): cannot listen at {where}: {error}. It must be an address of this machine,"
                " and a port that is free, or none"
            ) from error
        self._listener.settimeout(0.2)
        self._connections: set[_Connection] = set()
        self._closed_at: float | None = None
        self.address = TcpAddress(
            host, self._listener.getsockname()[1], secrets.token_bytes(PROOF_SIZE)
        )
        _stations.add(self)
        for work in self._listen, self._pulse:
            threading.Thread(target=work, name="dagsterpipes-relay", daemon=True).start()

    def close(self, timeout: float) -> None:
        """Refuse what comes from now on, and tell the workers; what has begun gets ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        self._hub.close()  # before a worker is told so
        self._closed_at = time.monotonic()
        for connection in list(self._connections):
            if connection.busy.acquire(timeout=max(0.0, deadline - time.monotonic())):
                self._say_closed(connection)
                connection.busy.release()

    def close_inherited(self) -> None:
        """In a forked child: close the descriptors, so that workers see when the driver dies."""
        self._listener.close()
        for connection in list(self._connections):
            connection.socket.close()

    def _say_closed(self, connection: _Connection) -> None:
        if connection.worker is not None:
            connection.say(CLOSED)
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_WR)

    def _is_over(self) -> bool:
        return self._closed_at is not None and time.monotonic() - self._closed_at > LINGER

    def _listen(self) -> None:
        with self._listener:
            while not self._is_over():
                try:
                    connection, _ = self._listener.accept()
                except TimeoutError:
                    continue
                except OSError:  # too many open files, for example
                    time.sleep(0.05)
                    continue
                threading.Thread(
                    target=self._serve,
                    args=(connection,),
                    name="dagsterpipes-relay-worker",
                    daemon=True,
                ).start()

    def _pulse(self) -> None:
        while not self._is_over():
            time.sleep(PULSE_INTERVAL)
            for connection in list(self._connections):
                connection.pulse()

    def _serve(self, raw: socket.socket) -> None:
        connection = _Connection(raw)
        self._connections.add(connection)
        try:
            with raw, contextlib.suppress(OSError):
                self._greet(connection)
                self._take_frames(connection)
        finally:
            self._connections.discard(connection)

    def _greet(self, connection: _Connection) -> None:
        raw = connection.socket
        raw.settimeout(SILENCE)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        nonce = secrets.token_bytes(NONCE_SIZE)
        raw.sendall(nonce)
        if receive(raw, len(MAGIC)) != MAGIC:
            raise ConnectionRefusedError
        worker = receive(raw, ID_SIZE)
        parts = nonce, receive(raw, NONCE_SIZE), worker
        token = self.address.token
        if not compare_digest(receive(raw, PROOF_SIZE), proof(token, b"worker", *parts)):
            raise ConnectionRefusedError
        raw.sendall(proof(token, b"driver", *parts))
        connection.worker = worker

    def _take_frames(self, connection: _Connection) -> None:
        raw, worker = connection.socket, connection.worker
        assert worker is not None
        while True:
            raw.settimeout(None)
            first = receive(raw, 1)
            with connection.busy:
                raw.settimeout(SILENCE)
                seq, length = HEAD.unpack(first + receive(raw, HEAD.size - 1))
                if not 0 < length <= MOST:
                    raise ConnectionRefusedError
                connection.is_taking = True
                lines = receive(raw, length)
                if not lines.endswith(b"\n"):
                    raise ConnectionRefusedError
                connection.say(seq if self._hub.accept(worker, seq, lines) else CLOSED)
                if self._closed_at is not None:
                    self._say_closed(connection)


_stations: weakref.WeakSet[TcpStation] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for station in list(_stations):
        station.close_inherited()


add_fork_hooks(ForkHooks(lambda: None, lambda: None, _after_fork_in_child))


def _parse(where: str) -> tuple[str, int]:
    """Host and port of ``tcp://HOST[:PORT]``; without a host the loopback, without a port any."""
    try:
        parts = urlsplit(where)
        host, port = parts.hostname or "127.0.0.1", parts.port or 0
        is_plain = parts.scheme == "tcp" and not (parts.path or parts.query or parts.username)
    except ValueError:
        is_plain = False
    if not is_plain:
        raise ValueError(f"relay(): must be tcp://HOST or tcp://HOST:PORT, got {where!r}")
    if host in ("0.0.0.0", "::"):  # noqa: S104 because it is refused
        raise ValueError(
            f"relay(): {where!r} names no machine: give the address by which workers reach this one"
        )
    return host, port
