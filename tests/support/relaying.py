"""Doubles for relays: a driver's session that only keeps lines, and a TCP proxy that cuts connections."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.assets import ReportScope
from dagsterpipes._session.options import Settings
from support.launching import CONTEXT

if TYPE_CHECKING:
    from dagsterpipes.typing import PipesContextData

DATA: PipesContextData = CONTEXT | {  # type: ignore[assignment] # because it has all keys
    "asset_keys": ["a", "b"],
    "code_version_by_asset_key": {"a": None, "b": None},
    "provenance_by_asset_key": {"a": None, "b": None},
}


class KeepingSession:
    """What a relay needs of a driver's session; keeps the lines, and has room while ``flowing`` is set."""

    def __init__(self, **settings: Any) -> None:
        self.lines = b""
        self.scope = ReportScope(DATA["asset_keys"])
        self.flowing = threading.Event()
        self.flowing.set()
        self.settings = Settings(**{"coalesce_logs": 0, **settings})
        self._lock = threading.Lock()

    def take_lines(self, lines: bytes) -> bool:
        self.flowing.wait()
        with self._lock:
            self.lines += lines
        return True

    def open_scope(self, method: str) -> ReportScope:
        del method
        return self.scope

    def for_workers(self) -> tuple[PipesContextData, Settings]:
        return DATA, self.settings

    def close_first(self, relay: Any) -> None:
        """Nothing closes it but the test."""

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.splitlines()]

    def logs(self) -> list[str]:
        return [one["params"]["message"] for one in self.messages() if one["method"] == "log"]


HANDSHAKE = {"up": 16 + 16 + 32 + 32, "down": 32 + 32}
"""Bytes before the first frame and the first acknowledgement."""


class CuttingProxy:
    """Forwards a TCP port, and resets connections after random numbers of bytes in either direction.

    Args:
        upstream: The port of the driver.
        seed: Of the random numbers.
        most: Bytes after which a connection is cut, at most; the handshake passes.
        cuts: How many connections are cut; the rest pass.
    """

    def __init__(self, upstream: int, *, seed: int, most: int, cuts: int) -> None:
        self._upstream = upstream
        self._random = random.Random(seed)
        self._most = most
        self.cuts_left = cuts
        # Which direction was cut, and how many bytes of a frame or an acknowledgement it had let pass.
        self.cuts: list[tuple[str, int]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(("127.0.0.1", self._upstream))
                cut = ("up", "down")[self.cuts_left % 2] if self.cuts_left > 0 else None
                self.cuts_left -= 1
                # An acknowledgement has 8 bytes: some are cut in the middle, some are swallowed whole.
                after = self._random.randrange(1, self._most if cut == "up" else 25)
                for way, source, target in (("up", ours, theirs), ("down", theirs, ours)):
                    limit = HANDSHAKE[way] + after if way == cut else None
                    threading.Thread(
                        target=self._pump, args=(way, source, target, limit), daemon=True
                    ).start()

    def _pump(
        self, way: str, source: socket.socket, target: socket.socket, limit: int | None
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if limit is not None and passed + len(data) >= limit:
                    target.sendall(data[: limit - passed])
                    self.cuts.append((way, limit - HANDSHAKE[way]))
                    break
                target.sendall(data)
                passed += len(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


WORKER = """
import pickle, sys
relay = pickle.loads(bytes.fromhex(sys.argv[1]))
"""


def start_worker(relay: Any, script: str, **options: Any) -> subprocess.Popen[str]:
    """Run a script in a process of its own, with the relay as ``relay``; as an engine's worker would."""
    import pickle

    return subprocess.Popen(
        [sys.executable, "-c", WORKER + textwrap.dedent(script), pickle.dumps(relay).hex()],
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )


def finish(worker: subprocess.Popen[str]) -> str:
    """Wait for a worker; what it printed."""
    out, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0, worker.returncode
    return out
