"""Object stores that fail: accepted is stored, or the error names what was lost and where it is kept."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from dagsterpipes import (
    ChannelError,
    FlushTimeoutError,
    MessagesLostError,
    PipesContext,
    open_dagster_pipes,
)
from support.stores import Store, messages_of, methods, texts

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 50
ALL = [f"line {number}" for number in range(COUNT)]


@pytest.fixture
def launched(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in store.env().items():
        monkeypatch.setenv(name, value)
    return store


def work(pipes: PipesContext) -> None:
    for text in ALL:
        pipes.log.info(text)
    pipes.report_asset_materialization({"rows": 3})


def check_complete(store: Store) -> None:
    """Every message once, in order, in chunks without a gap."""
    messages = store.messages()
    assert texts(messages) == ALL
    assert [method for method in methods(messages) if method != "log"] == [
        "opened",
        "report_asset_materialization",
        "closed",
    ]


def check_recovered(error: MessagesLostError, store: Store, chunks: list[bytes]) -> None:
    """What is not in the store is in the recovery file, counted."""
    assert error.recovery_file is not None
    path = Path(error.recovery_file)
    kept = [json.loads(line) for line in path.read_bytes().splitlines()]
    path.unlink()
    assert len(kept) == error.count
    assert methods(kept)[-1] == "closed"
    assert texts(messages_of(chunks) + kept) == ALL
    assert "report_asset_materialization" in methods(kept)


def test_without_faults(launched: Store) -> None:
    """`opened` is stored when the session is open, all the rest and `closed` in one object."""
    with open_dagster_pipes(**launched.parts()) as pipes:
        assert methods(launched.messages()) == ["opened"]
        assert pipes.run_id == "run"
        for text in ALL:
            pipes.log.info(text)
    chunks = launched.chunks()
    assert len(chunks) == 2
    assert chunks[-1].splitlines()[-1].find(b'"closed"') > 0
    assert texts(messages_of(chunks)) == ALL


FAULTS: dict[str, Callable[[Any], None]] = {
    "503": lambda store: store.fail(4, status=503),
    "503, but stored": lambda store: store.fail(3, status=503, is_stored=True),
    "connection cut": lambda store: store.fail(3, is_cut=True),
    "connection cut, but stored": lambda store: store.fail(3, is_cut=True, is_stored=True),
    "403 for a while": lambda store: store.fail(3, status=403),
    "slow": lambda store: store.fail(3, delay=1.0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_ends(fault: str, launched: Store) -> None:
    """The same object is put again with the same bytes until it is stored; nothing twice."""
    with open_dagster_pipes(**launched.parts(), close_timeout=60) as pipes:
        FAULTS[fault](launched)
        work(pipes)
    check_complete(launched)


@pytest.mark.parametrize("fault", ["503", "503, but stored", "connection cut"])
def test_a_fault_while_opening(fault: str, launched: Store) -> None:
    """What may pass does not prevent the opening."""
    FAULTS[fault](launched)
    with open_dagster_pipes(**launched.parts(), close_timeout=60) as pipes:
        work(pipes)
    check_complete(launched)


def test_what_the_reader_may_have_read_is_not_changed(launched: Store) -> None:
    """An object that was stored by a put that failed stays as it is; later lines come behind it."""
    with open_dagster_pipes(**launched.parts()) as pipes:
        launched.fail(2, status=503, is_stored=True)
        pipes.log.info("first")
        pipes.report_custom_message("pressing")
        deadline = time.monotonic() + 20
        while len(launched.chunks()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        seen = launched.chunks()[1]
        pipes.log.info("second")
    assert launched.chunks()[1] == seen
    assert texts(launched.messages()) == ["first", "second"]


@pytest.mark.parametrize("status", [503, 403])
def test_a_fault_that_does_not_end(status: int, launched: Store) -> None:
    """`close` ends in time, with everything in a recovery file."""
    pipes = open_dagster_pipes(**launched.parts(), close_timeout=1.5)
    launched.fail(1000, status=status)
    work(pipes)
    begin = time.monotonic()
    with pytest.raises(MessagesLostError, match=str(status)) as caught:
        pipes.close()
    assert time.monotonic() - begin < 4
    check_recovered(caught.value, launched, launched.chunks())


def test_a_store_that_hangs(launched: Store) -> None:
    """`close` does not wait longer than it may for a put that does not end."""
    pipes = open_dagster_pipes(**launched.parts(), close_timeout=1.5)
    chunks = launched.chunks()
    launched.proxy.hang()
    work(pipes)
    begin = time.monotonic()
    with pytest.raises(MessagesLostError, match="still writing") as caught:
        pipes.close()
    assert time.monotonic() - begin < 4
    check_recovered(caught.value, launched, chunks)


def test_flush_returns_when_it_is_stored(launched: Store) -> None:
    """Not before, and not at all while the store fails."""
    with open_dagster_pipes(**launched.parts(), close_timeout=60) as pipes:
        pipes.log.info("one")
        pipes.flush()
        assert texts(launched.messages()) == ["one"]
        launched.fail(1000, status=503)
        pipes.log.info("two")
        with pytest.raises(FlushTimeoutError, match="503"):
            pipes.flush(timeout=1)
        launched.proxy.heal()
        pipes.flush(timeout=30)
        assert texts(launched.messages()) == ["one", "two"]


@pytest.mark.parametrize("in_coroutine", [False, True], ids=["with", "async with"])
@pytest.mark.parametrize(
    ("status", "bucket", "wanted"),
    [(403, "pipes", "403"), (None, "nosuchbucket", "1.json could not be written")],
)
def test_a_permanent_fault_while_opening(
    status: int | None,
    bucket: str,
    wanted: str,
    in_coroutine: bool,
    launched: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an error there that says what was tried; and the next session can be opened."""
    for name, value in launched.env(bucket=bucket).items():
        monkeypatch.setenv(name, value)
    if status is not None:
        launched.fail(1, status=status)

    async def in_loop() -> None:
        async with open_dagster_pipes(**launched.parts(bucket=bucket)):
            pass

    with pytest.raises(ChannelError, match=wanted) as caught:
        if in_coroutine:
            asyncio.run(in_loop())
        else:
            open_dagster_pipes(**launched.parts(bucket=bucket))
    place = f"{launched.scheme}://{bucket}" if launched.scheme else bucket
    assert f"{place}/{launched.prefix}/messages/1.json" in str(caught.value)
    assert not PipesContext.is_initialized() or PipesContext.get().is_closed
    for name, value in launched.env().items():
        monkeypatch.setenv(name, value)
    with open_dagster_pipes(**launched.parts()) as pipes:
        work(pipes)
    check_complete(launched)


def test_nothing_is_asked_of_the_bucket(launched: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only objects are read and stored: the job needs no permission for the bucket itself."""
    # What Google's client asks by itself, for traces, and can do without.
    monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "1")
    with open_dagster_pipes(**launched.parts()) as pipes:
        work(pipes)
    paths = [unquote(urlsplit(one.path).path) for one in launched.proxy.requests]
    # Google's client has the name of an object in the body of an upload.
    uploads = [path for path in paths if path.startswith("/upload/storage/v1/b/pipes/o")]
    assert len(paths) >= 3
    assert all(launched.prefix in path for path in paths if path not in uploads)


@pytest.mark.parametrize("fault", [{}, {"status": 503}, {"status": 503, "is_stored": True}])
def test_a_second_writer_on_one_prefix(fault: dict[str, Any], launched: Store) -> None:
    """It is refused when it opens, and changes nothing; what failed at the first one does not matter."""
    if fault:
        launched.fail(1, **fault)
    with open_dagster_pipes(**launched.parts()) as pipes:
        work(pipes)
    chunks = launched.chunks()
    with pytest.raises(ChannelError, match=r"/messages/1.json is there already: another process"):
        open_dagster_pipes(**launched.parts())
    assert launched.chunks() == chunks
    check_complete(launched)


def test_a_store_that_nobody_listens_for(launched: Store) -> None:
    """A refused connection is tried again, and ends in a recovery file."""
    pipes = open_dagster_pipes(**launched.parts(), close_timeout=1.5)
    chunks = launched.chunks()
    launched.proxy.refuse()
    work(pipes)
    with pytest.raises(MessagesLostError, match="could not be written") as caught:
        pipes.close()
    check_recovered(caught.value, launched, chunks)


def test_the_loop_is_not_blocked(launched: Store) -> None:
    """A put that takes a second does not stop an async job."""

    async def main() -> float:
        worst = 0.0
        async with open_dagster_pipes(**launched.parts()) as pipes:
            launched.fail(3, delay=1.0)
            pipes.report_custom_message("pressing")
            for _ in range(100):
                begin = time.monotonic()
                pipes.log.info("tick")
                await asyncio.sleep(0.01)
                worst = max(worst, time.monotonic() - begin)
        return worst

    assert asyncio.run(main()) < 0.5


def test_an_opening_that_fails_leaves_nothing_behind(launched: Store) -> None:
    """Streams and loggers are as they were, since they are captured before `opened` is stored."""
    streams, handlers = [os.fstat(fd).st_ino for fd in (1, 2)], logging.getLogger().handlers[:]
    launched.fail(1, status=403)
    with pytest.raises(ChannelError, match="403"):
        open_dagster_pipes(**launched.parts(), capture_stdio=True, capture_logging=True)
    assert [os.fstat(fd).st_ino for fd in (1, 2)] == streams
    assert logging.getLogger().handlers == handlers


def test_a_failing_job_is_not_hidden_by_a_failing_store(launched: Store) -> None:
    """The exception of the job is the one that is raised; the store's is a note or its context."""
    with (
        pytest.raises(ZeroDivisionError) as caught,
        open_dagster_pipes(**launched.parts(), close_timeout=1) as pipes,
    ):
        launched.fail(1000, status=503)
        pipes.log.info("one")
        raise ZeroDivisionError("the job's own")
    for path in Path(tempfile.gettempdir()).glob(f"dagsterpipes-recovery-{os.getpid()}-*"):
        path.unlink()
    assert "the job's own" in str(caught.value)


def test_a_store_that_comes_back_in_time(launched: Store) -> None:
    """`close` retries at once, and then soon."""
    pipes = open_dagster_pipes(**launched.parts(), close_timeout=20)
    launched.fail(1000, status=503)
    work(pipes)
    threading.Timer(1.0, launched.proxy.heal).start()
    begin = time.monotonic()
    pipes.close()
    assert time.monotonic() - begin < 6
    check_complete(launched)
