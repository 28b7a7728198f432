"""Numbered objects: contiguous, whole lines, the same bytes again after a failure; and their pace."""

from __future__ import annotations

import sys

import pytest

from dagsterpipes._delivery.channels.object_store import (
    HANDLING,
    MOST_UNREAD,
    MOST_UNREAD_AT_END,
    ObjectStoreChannel,
    ReaderPace,
    is_permanent,
)
from dagsterpipes.exceptions import ChannelError, DagsterPipesWarning, SessionClosedError

PERIOD = 11.0


class Store:
    """Keeps what is put; fails as often as it is told, before or after it stored."""

    def __init__(self, max_size: int = sys.maxsize) -> None:
        self.objects: dict[int, bytes] = {}
        self.puts: list[tuple[int, bytes]] = []
        self.errors: list[tuple[Exception, bool]] = []
        self.channel = ObjectStoreChannel(
            self.put, place="s3://b/p", interval=10, max_size=max_size, clock=lambda: 0.0
        )

    def put(self, number: int, lines: bytes) -> None:
        self.puts.append((number, lines))
        error, is_stored = self.errors.pop(0) if self.errors else (None, True)
        if is_stored:
            self.objects[number] = lines
        if error is not None:
            raise error


def test_objects_are_numbered_from_one() -> None:
    """One for each write that has lines."""
    store = Store()
    store.channel.write(b"a\n")
    store.channel.write(b"")
    store.channel.write(b"b\nc\n")
    assert store.objects == {1: b"a\n", 2: b"b\nc\n"}
    assert store.channel.unwritten() == b""


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_failed_put_is_repeated_as_it_was(is_stored: bool) -> None:
    """Lines that came later go into the next object, as the reader may have read this one."""
    store = Store()
    store.channel.write(b"a\n")
    store.errors = [(OSError("no"), is_stored)] * 2
    for lines in (b"b\n", b"c\n"):
        with pytest.raises(OSError, match=r"s3://b/p/2.json could not be written: OSError: no"):
            store.channel.write(lines)
    assert store.channel.unwritten() == b"b\nc\n"
    store.channel.write(b"")
    assert store.puts[1:] == [(2, b"b\n"), (2, b"b\n"), (2, b"b\n"), (3, b"c\n")]
    assert store.channel.unwritten() == b""


def test_an_object_that_would_be_too_long_is_split() -> None:
    """At ends of lines; a line that is longer than the reader reads is warned about."""
    store = Store(max_size=10)
    store.channel.write(b"12345\n789\nbcd\n")
    assert store.objects == {1: b"12345\n789\n", 2: b"bcd\n"}
    with pytest.warns(
        DagsterPipesWarning, match="16 bytes goes to s3://b/p, .* the first 10 bytes"
    ):
        store.channel.write(b"x\n" + b"y" * 15 + b"\nz\n")
    assert [store.objects[number] for number in (3, 4, 5)] == [b"x\n", b"y" * 15 + b"\n", b"z\n"]


class TestFirstObject:
    """It is created, not overwritten: another process may have sent it."""

    class Store:
        """Keeps the first object unless it is told to fail, before or after it stored."""

        def __init__(self, *errors: tuple[Exception, bool]) -> None:
            self.calls: list[str] = []
            self.objects: dict[int, bytes] = {}
            self.errors = list(errors)
            self.channel = ObjectStoreChannel(
                self.put, create=self.create, place="s3://b/p", interval=10, clock=lambda: 0.0
            )

        def put(self, number: int, lines: bytes) -> None:
            self.calls.append(f"put {number}")
            self.objects[number] = lines

        def create(self, lines: bytes) -> None:
            self.calls.append("create")
            error, is_stored = self.errors.pop(0) if self.errors else (None, True)
            if is_stored:
                if 1 in self.objects:
                    raise FileExistsError("1.json")
                self.objects[1] = lines
            if error is not None:
                raise error

    def test_only_the_first_one(self) -> None:
        """Nobody else has the numbers behind it."""
        store = self.Store()
        store.channel.write(b"a\n")
        store.channel.write(b"b\n")
        assert store.calls == ["create", "put 2"]

    def test_of_another_process(self) -> None:
        """It stays as it is; the error says what to do."""
        store = self.Store()
        store.objects[1] = b"theirs\n"
        for _ in range(2):
            with pytest.raises(ChannelError, match=r"s3://b/p/1.json is there already: another"):
                store.channel.write(b"" if store.calls else b"a\n")
        assert store.objects == {1: b"theirs\n"}
        assert store.channel.unwritten() == b"a\n"

    @pytest.mark.parametrize("is_stored", [False, True])
    @pytest.mark.parametrize("status", [None, 503])
    def test_a_try_that_may_have_stored_it(self, status: int | None, is_stored: bool) -> None:
        """The next one overwrites: what is there is its own."""
        error = OSError("cut") if status is None else AzureError(status)
        store = self.Store((error, is_stored))
        with pytest.raises(OSError, match=r"1.json could not be written"):
            store.channel.write(b"a\n")
        store.channel.write(b"")
        assert store.calls == ["create", "put 1"]
        assert store.objects == {1: b"a\n"}

    def test_a_try_that_was_refused(self) -> None:
        """The store says that it did nothing: the next one must still find nothing there."""
        store = self.Store((AzureError(429), False))
        with pytest.raises(OSError, match="HTTP 429"):
            store.channel.write(b"a\n")
        store.objects[1] = b"theirs\n"
        with pytest.raises(ChannelError, match="is there already"):
            store.channel.write(b"")
        assert store.objects == {1: b"theirs\n"}


def test_the_first_object_may_be_refused_for_good() -> None:
    """With an error that says what was tried; a later one is always tried again."""
    store = Store()
    store.errors = [(PermissionError("denied"), False)]
    with pytest.raises(
        ChannelError, match=r"s3://b/p/1.json .*PermissionError: denied.*credentials"
    ):
        store.channel.write(b"a\n")
    store.channel.write(b"")
    store.errors = [(PermissionError("denied"), False)]
    with pytest.raises(OSError, match="denied"):
        store.channel.write(b"b\n")


def test_a_forked_child_writes_nothing() -> None:
    """It forgets what its parent has; two writers would overwrite each other's objects."""
    store = Store()
    store.errors = [(OSError("no"), False)]
    with pytest.raises(OSError, match="no"):
        store.channel.write(b"a\n")
    store.channel.after_fork_in_child()
    assert store.channel.unwritten() == b""
    with pytest.raises(SessionClosedError, match="only the process that opened the session"):
        store.channel.write(b"b\n")
    assert store.channel.unwritten() == b"b\n"
    assert len(store.puts) == 1


class TestPace:
    """No faster than a reader that takes one object in eleven seconds can follow."""

    def test_logs_flow_once_a_period(self) -> None:
        """Warnings and floods too; a report does not wait."""
        pace = ReaderPace(10)
        assert pace.delay("some", 100.0) == 0
        pace.stored(5, 100.0)
        for ready in ("some", "urgent", "flood"):
            assert pace.delay(ready, 103.0) == PERIOD - 3
        assert pace.delay("pressing", 103.0) == 0
        assert pace.delay("sealed", 103.0) == 0
        assert pace.delay("some", 111.0) == 0

    def test_the_reader_counts_whole_seconds(self) -> None:
        """An interval that is no whole number is a period of the next one."""
        pace = ReaderPace(0.001)
        pace.stored(1, 0.0)
        assert pace.delay("some", 0.25) == 0.75

    def test_only_so_many_objects_are_unread(self) -> None:
        """Then what presses waits until the reader has begun with one more."""
        pace = ReaderPace(10)
        for number in range(MOST_UNREAD):
            assert pace.delay("pressing", float(number)) == 0
            pace.stored(1, float(number))
        # Read after 11, 22, 33 and 44 seconds.
        assert pace.delay("pressing", 4.0) == PERIOD - 4
        assert pace.delay("sealed", 4.0) == 0
        pace.stored(1, PERIOD)
        assert pace.delay("pressing", PERIOD) == PERIOD

    def test_the_end_has_room_for_more(self) -> None:
        """The reader takes about one a second then."""
        pace = ReaderPace(10)
        for _ in range(MOST_UNREAD_AT_END):
            assert pace.delay("sealed", 0.0) == 0
            pace.stored(1, 0.0)
        assert pace.delay("sealed", 0.0) == PERIOD

    def test_one_object_with_many_messages_at_a_time(self) -> None:
        """While the reader handles it, its time after the end of the process passes."""
        pace = ReaderPace(10)
        pace.stored(10_000, 0.0)
        assert pace.delay("pressing", 1.0) == PERIOD - 1
        assert pace.delay("sealed", 1.0) == PERIOD - 1
        # Begun with: it gets on with the next when it is done.
        assert pace.delay("sealed", PERIOD) == 0
        pace.stored(10_000, PERIOD)
        assert pace.delay("sealed", PERIOD) == pytest.approx(10_000 * HANDLING)


class BotocoreError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


class GoogleError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.code = status


class AzureError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status_code = status


@pytest.mark.parametrize("kind", [BotocoreError, GoogleError, AzureError])
def test_what_is_permanent(kind: type[Exception]) -> None:
    """By the status, wherever a client has it."""
    assert [
        status for status in (400, 403, 404, 408, 409, 429, 500, 503) if is_permanent(kind(status))
    ] == [
        400,
        403,
        404,
    ]
    assert not is_permanent(TimeoutError())
    assert not is_permanent(ConnectionRefusedError())
    assert is_permanent(AttributeError("no put_object"))
