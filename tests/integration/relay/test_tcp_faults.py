"""A relay over TCP, and every fault of its guarantees."""

from __future__ import annotations

import os
import signal
import socket
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dagsterpipes import MessagesLostError, PipesContext, SessionClosedError
from dagsterpipes._relay import worker as worker_module
from dagsterpipes._relay.frames import HEAD, MAGIC, MOST, proof
from dagsterpipes._relay.links import tcp
from dagsterpipes._relay.relay import PipesRelay, open_relay
from support.relaying import CuttingProxy, KeepingSession, finish, start_worker


def address(relay: Any) -> tcp.TcpAddress:
    found = relay._invitation.address
    assert isinstance(found, tcp.TcpAddress)
    return found


def at(relay: Any, **changes: Any) -> PipesRelay[PipesContext]:
    """The relay as a worker gets it, at another address or with another token."""
    invitation = relay._invitation
    place = tcp.TcpAddress(*address(relay)._replace(**changes))
    return PipesRelay(
        invitation._replace(address=place, relay=os.urandom(4).hex()), PipesContext, None, None
    )


def numbers(texts: list[str]) -> list[int]:
    return [int(text.rpartition(" ")[2]) for text in texts]


def test_a_killed_worker_is_retried(relay: Any, session: KeepingSession) -> None:
    """What it flushed is there, its report is not; the second attempt's is; nothing is there twice."""
    script = """
    import os, signal
    with relay.open("w") as pipes:
        for i in range(1000):
            pipes.log.info("attempt %s line %d", sys.argv[2:], i)
        pipes.report_asset_materialization({"attempt": len(sys.argv)}, asset_key="a")
        pipes.flush()
        if DIES:
            os.kill(os.getpid(), signal.SIGKILL)
    """
    first = start_worker(relay, "DIES = True\n" + textwrap.dedent(script))
    first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL
    assert numbers(session.logs()) == list(range(1000))
    finish(start_worker(relay, "DIES = False\n" + textwrap.dedent(script)))
    assert numbers(session.logs()) == [*range(1000), *range(1000)]
    methods = [one["method"] for one in session.messages()]
    assert methods.count("report_asset_materialization") == 1
    assert methods[-1] == "report_asset_materialization"


def test_what_is_older_than_the_interval_survives_a_kill(
    relay: Any, session: KeepingSession
) -> None:
    worker = start_worker(
        relay,
        """
        import time
        with relay.open() as pipes:
            pipes.log.info("line 0")
            print("logged", flush=True)
            time.sleep(60)
        """,
    )
    assert worker.stdout is not None
    worker.stdout.readline()
    time.sleep(0.5)  # ten times what is promised, for a busy machine
    worker.kill()
    worker.communicate()
    assert numbers(session.logs()) == [0]


@pytest.mark.parametrize("seed", range(3))
def test_a_link_that_is_cut_anywhere(relay: Any, session: KeepingSession, seed: int) -> None:
    """In the middle of frames and of acknowledgements: every line once, in order."""
    proxy = CuttingProxy(address(relay).port, seed=seed, most=60_000, cuts=8)
    try:
        with at(relay, port=proxy.port).open("w") as pipes:
            for number in range(20_000):
                pipes.log.info("a line of some length, as they are: %d", number)
                if number % 200 == 0:
                    pipes.flush()
    finally:
        proxy.close()
    assert {way for way, _ in proxy.cuts} == {"up", "down"}
    assert len(proxy.cuts) == 8
    assert numbers(session.logs()) == list(range(20_000))


def test_the_driver_closes_under_fire(relay: Any, session: KeepingSession, tmp_path: Path) -> None:
    """Two workers log until they are refused: what was accepted is delivered or in recovery files."""
    script = """
    import warnings, threading
    from dagsterpipes import SessionClosedError, MessagesLostError
    warnings.simplefilter("ignore")
    number = 0
    try:
        with relay.open(NAME) as pipes:
            print("open", flush=True)
            while True:
                pipes.log.info("%s line %d", NAME, number)
                number += 1
    except SessionClosedError as error:
        pass
    print(number)
    """
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    workers = [
        start_worker(relay, f"NAME = {name!r}\n" + textwrap.dedent(script), env=env)
        for name in "vw"
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
    time.sleep(0.3)
    relay.close()
    delivered = session.lines
    accepted = [int(finish(worker)) for worker in workers]
    assert session.lines == delivered  # nothing after the close
    kept = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("dagsterpipes-recovery-*")))
    for name, count in zip("vw", accepted, strict=True):
        mark = f"[{name}] {name} line ".encode()
        found = [
            int(line.split(mark)[1].split(b'"')[0])
            for line in (delivered + kept).splitlines()
            if mark in line
        ]
        assert sorted(found) == list(range(count))
        assert count > 1000


def test_a_stalled_driver_makes_callers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the silence after which it would be gone; memory stays bounded; nothing is lost."""
    monkeypatch.setattr(tcp, "PULSE_INTERVAL", 0.1)
    monkeypatch.setattr(tcp, "SILENCE", 0.5)
    monkeypatch.setattr(worker_module.RelayChannel.__init__, "__defaults__", (0.5,))
    session = KeepingSession(buffer_size=1 << 17)
    accepted = 0
    with open_relay("tcp://", session, PipesContext, None) as relay:
        text = "x" * 100

        def work() -> None:
            nonlocal accepted
            with relay.open("w") as pipes:
                for number in range(20_000):
                    pipes.log.info("%s %d", text, number)
                    accepted += 1

        session.flowing.clear()
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(2)
        # A buffer, a batch that is being sent, and what is not counted yet.
        assert accepted * 100 < (1 << 17) + 2_000_000
        assert accepted < 20_000
        session.flowing.set()
        thread.join(60)
        assert not thread.is_alive()
    assert numbers(session.logs()) == list(range(20_000))


def test_no_sign_of_life_comes_behind_an_answer() -> None:
    """The worker would wait for another answer, to a frame that it has not sent."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = tcp._Connection(ours)
        connection.pulse()
        connection.is_taking = True
        connection.pulse()
        connection.say(7)
        connection.pulse()
        assert theirs.recv(100) == (0).to_bytes(8, "big") + (7).to_bytes(8, "big")


def test_frames_while_signs_of_life_are_given(
    relay: Any, session: KeepingSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as can be: none is taken for an answer."""
    monkeypatch.setattr(tcp, "PULSE_INTERVAL", 0)
    time.sleep(1.1)  # for the last interval of a second
    link = address(relay).connect(b"w" * 16)
    began = time.monotonic()
    for seq in range(1, 2001):
        link.send(seq, b"{}\n")
    link.close()
    assert session.lines == b"{}\n" * 2000
    assert time.monotonic() - began < tcp.SILENCE


def test_a_driver_that_is_gone(relay: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After the patience: an error for callers, and a file on the worker with what was accepted."""
    monkeypatch.setattr(worker_module.RelayChannel.__init__, "__defaults__", (0.3,))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(MessagesLostError) as caught, at(relay, port=port).open("w") as pipes:
        pipes.log.info("line 1")
        pipes.log.info("line 2")
    assert "the driver could not be reached for 0.3 s: ConnectionRefusedError" in str(caught.value)
    assert caught.value.count == 2
    assert caught.value.recovery_file is not None
    assert b"[w] line 2" in Path(caught.value.recovery_file).read_bytes()
    with pytest.raises(SessionClosedError):
        pipes.log.info("line 3")


def test_held_reports_of_a_closed_relay_are_kept(
    relay: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A report that was accepted is delivered, or in the file."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(MessagesLostError) as caught, relay.open("w") as pipes:
        pipes.report_asset_materialization({"rows": 1}, asset_key="a")
        relay.close()
        with pytest.raises((SessionClosedError, MessagesLostError)):
            for _ in range(100):
                pipes.log.info("are you there?")
                pipes.flush()
    assert caught.value.recovery_file is not None
    assert b"report_asset_materialization" in Path(caught.value.recovery_file).read_bytes()


def test_a_late_worker_is_told_at_once(relay: Any) -> None:
    """That the driver is done; it does not try for as long as it would with one out of reach."""
    late = at(relay)
    relay.close()
    began = time.monotonic()
    with (
        pytest.raises(MessagesLostError, match="the driver has closed the relay"),
        late.open() as pipes,
    ):
        pipes.log.info("late")
    assert time.monotonic() - began < 3


def test_a_wrong_token_is_refused(
    relay: Any, session: KeepingSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The driver takes nothing from it."""
    monkeypatch.setattr(worker_module.RelayChannel.__init__, "__defaults__", (0.3,))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(MessagesLostError), at(relay, token=b"x" * 32).open() as pipes:
        pipes.log.info("not for you")
    assert session.lines == b""
    with relay.open("w") as pipes:
        pipes.log.info("line 1")
    assert session.logs() == ["[w] line 1"]


def test_somebody_else_at_the_drivers_address(
    relay: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who does not know the token gets no line."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    received = b""
    with socket.create_server(("127.0.0.1", 0)) as impostor:

        def pretend() -> None:
            nonlocal received
            connection, _ = impostor.accept()
            with connection:
                connection.sendall(b"n" * 32)
                connection.recv(4096)
                connection.sendall(b"p" * 32)
                received = connection.recv(4096)

        thread = threading.Thread(target=pretend)
        thread.start()
        place = at(relay, port=impostor.getsockname()[1])
        with (
            pytest.raises(MessagesLostError, match="is not the driver of this relay"),
            place.open() as pipes,
        ):
            pipes.log.info("a secret")
        thread.join(10)
    assert received == b""


def _greeted(relay: Any, **wrong: bytes) -> socket.socket:
    """A connection to the driver, greeted as a worker does it."""
    host, port, _ = address(relay)
    token = wrong.get("token", address(relay).token)
    connection = socket.create_connection((host, port), timeout=5)
    its_nonce = connection.recv(32, socket.MSG_WAITALL)
    worker, nonce = b"w" * 16, b"n" * 32
    connection.sendall(MAGIC + worker + nonce + proof(token, b"worker", its_nonce, nonce, worker))
    return connection


def test_the_driver_proves_that_it_knows_the_token(relay: Any, session: KeepingSession) -> None:
    """And takes frames from whoever did before."""
    with _greeted(relay) as connection:
        assert len(connection.recv(32, socket.MSG_WAITALL)) == 32
        connection.sendall(HEAD.pack(1, 4) + b"abc\n")
        assert connection.recv(8, socket.MSG_WAITALL) == (1).to_bytes(8, "big")
    assert session.lines == b"abc\n"


def test_without_the_token_no_frame_is_taken(relay: Any, session: KeepingSession) -> None:
    with _greeted(relay, token=b"x" * 32) as connection, suppress(OSError):
        connection.sendall(HEAD.pack(1, 4) + b"abc\n")
        assert connection.recv(32) == b""
    assert session.lines == b""


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(HEAD.pack(1, MOST + 1) + b"x", id="too long"),
        pytest.param(HEAD.pack(1, 0), id="empty"),
        pytest.param(HEAD.pack(1, 3) + b"abc", id="no whole line"),
    ],
)
def test_a_frame_that_breaks_the_rules(relay: Any, session: KeepingSession, data: bytes) -> None:
    """The connection is closed, also one that has the token; nothing of it is taken."""
    with _greeted(relay) as connection:
        connection.recv(32, socket.MSG_WAITALL)
        connection.sendall(data)
        with suppress(ConnectionResetError):
            assert connection.recv(8) == b""
    assert session.lines == b""


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n" * 10, b"\0" * 200, MAGIC + b"\0" * 200])
def test_garbage_is_refused(relay: Any, session: KeepingSession, data: bytes) -> None:
    """And does not disturb the others."""
    host, port, _ = address(relay)
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(data)
        try:
            rest = b"".join(iter(lambda: connection.recv(4096), b""))
        except ConnectionResetError:
            rest = b""
    assert len(rest) in (0, 32)  # the driver's nonce, and no more
    with relay.open("w") as pipes:
        pipes.log.info("line 1")
    assert session.logs() == ["[w] line 1"]


def test_two_drivers_on_one_worker() -> None:
    """Each gets what its own tasks send, also when they run at the same time."""
    sessions = KeepingSession(), KeepingSession()
    relays = [open_relay("tcp://", session, PipesContext, None) for session in sessions]
    barrier = threading.Barrier(2)

    def task(number: int) -> None:
        for line in range(200):
            barrier.wait(10)
            PipesContext.get().log.info("driver %d line %d", number, line)

    threads = [
        threading.Thread(target=relay.wrap(task, name="w"), args=(number,))
        for number, relay in enumerate(relays)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, session in enumerate(sessions):
        expected = [f"[w] driver {number} line {line}" for line in range(200)]
        assert session.logs() == expected
    for relay in relays:
        relay.close()


def test_a_process_keeps_few_sessions(session: KeepingSession) -> None:
    """Those of drivers of long ago are ended, with their threads and connections."""
    for _ in range(worker_module.MOST_IDLE + 4):
        with open_relay("tcp://", session, PipesContext, None) as relay, relay.open() as pipes:
            pipes.log.info("line")
    assert len(worker_module._sessions) <= worker_module.MOST_IDLE + 1
