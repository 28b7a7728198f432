"""Delivers the messages of a recovery file after all, once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes._delivery.channels.object_store import ObjectStoreChannel
from dagsterpipes._delivery.channels.stream import PlainLines, StreamChannel
from dagsterpipes._protocol.envelope import CLOSED_HEAD, FILLER
from dagsterpipes._reader.line import judge_line
from dagsterpipes._reader.rules import Refused
from dagsterpipes.exceptions import DagsterPipesError
from dagsterpipes.stores import PipesBufferedFilesystemMessageWriterChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["ReplayError", "replay"]

AGAIN = "`--again` delivers them all the same."


class ReplayError(DagsterPipesError):
    """Nothing was delivered, or not everything; the message says which and what to do."""


def replay(file: Path, to: str, *, again: bool) -> str:
    """Deliver the messages of a recovery file; returns what was done, in words.

    They are delivered once: beside the file, in ``FILE.replayed``, it is recorded where they went. What an
    earlier call has begun is continued where that can be known, which is so for files and stores. A
    ``closed`` that stands at the end of the target stays there: the messages go before it.

    Args:
        file: Whole lines, each a message that Dagster takes.
        to: The path of a messages file, ``-`` for stdout, or the folder or URL of a store.
        again: Do not ask whether they were delivered before.

    Raises:
        ReplayError: The file is no recovery file, or was delivered elsewhere; or the target takes nothing.
    """
    messages = _read_messages(file)
    target = _open_target(to)
    record = _Record(file)
    begun = None if again else record.load()
    count = f"{len(messages):,} message{'s' * (len(messages) != 1)}"
    if begun is not None and begun["to"] != target.place:
        raise ReplayError(
            f"{file} was delivered to {begun['to']}, or that was begun ({record.path} says so). {AGAIN}"
        )
    if begun is not None and begun["done"]:
        return f"The {count} were delivered to {target.place} before; nothing was done. {AGAIN}"
    if begun is None:
        if not again and target.holds(messages):
            raise ReplayError(
                f"{target.place} holds the {count} already, one after the other, so nothing was done. {AGAIN}"
            )
        position = target.position()
        record.save(target.place, position, is_new=not again)
    else:
        position = begun["position"]
    try:
        note = target.deliver(messages, position, resumes=begun is not None)
    except OSError as error:
        raise ReplayError(
            f"Not all of the {count} were delivered to {target.place}: {error.strerror or error}."
            " The same command goes on where this one stopped."
        ) from error
    record.save(target.place, position, done=True)
    return f"Delivered {count} to {target.place}.{note}"


def _read_messages(file: Path) -> list[bytes]:
    """The lines, without space around them.

    Raises:
        ReplayError: There are none, or Dagster would refuse one.
    """
    data = file.read_bytes()
    if not data.endswith(b"\n"):
        raise ReplayError(
            f"{file} is empty or does not end in a whole line, so it is no recovery file."
        )
    lines = data.split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        verdict = judge_line(line + b"\n")
        if isinstance(verdict, Refused):
            raise ReplayError(
                f"Line {number} of {file} is none that Dagster takes: {verdict.detail} (rule"
                f" {verdict.rule}). Nothing was delivered."
            )
    return _messages(lines)


def _messages(lines: Iterable[bytes]) -> list[bytes]:
    """Lines without those that only fill space, and without space around them."""
    stripped = map(bytes.strip, lines)
    return [line for line in stripped if line and line != FILLER]


class _Record:
    """What is known of earlier deliveries of a file.

    Args:
        file: The recovery file.
    """

    def __init__(self, file: Path) -> None:
        self.path = file.with_name(f"{file.name}.replayed")

    def load(self) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            return {key: record[key] for key in ("to", "position", "done")}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise ReplayError(
                f"{self.path} records where the messages went, and cannot be read. {AGAIN}"
            ) from None

    def save(self, to: str, position: Any, *, done: bool = False, is_new: bool = False) -> None:
        record = json.dumps({"to": to, "position": position, "done": done})
        try:
            with self.path.open("x" if is_new else "w", encoding="utf-8") as file:
                file.write(record + "\n")
        except FileExistsError:
            raise ReplayError(f"Another process has just begun to deliver {self.path}.") from None
        except OSError as error:
            raise ReplayError(
                f"Where the messages go cannot be recorded in {self.path}: {error.strerror}. Copy the"
                " recovery file to a folder that can be written to."
            ) from None


class _Target(Protocol):
    place: str
    """Where it is, the same whenever it is named."""

    def holds(self, messages: Sequence[bytes]) -> bool:
        """Whether these messages are there, one after the other."""

    def position(self) -> Any:
        """Where the messages will begin, for a later call to go on."""

    def deliver(self, messages: Sequence[bytes], position: Any, *, resumes: bool) -> str:
        """Deliver them, but what an earlier call has delivered; returns a remark, or nothing.

        Raises:
            OSError: Not everything could be delivered.
        """


def _open_target(to: str) -> _Target:
    if to == "-":
        return _Stdout()
    if "://" in to:
        return _store(to)
    path = Path(to).absolute()
    if path.is_dir():
        return _folder(path)
    return _MessagesFile(path)


class _Stdout:
    place = "stdout"

    def holds(self, messages: Sequence[bytes]) -> bool:  # noqa: ARG002 because nobody can know
        return False

    def position(self) -> None:
        return None

    def deliver(self, messages: Sequence[bytes], position: None, *, resumes: bool) -> str:  # noqa: ARG002 because there is none
        if resumes:
            raise ReplayError(
                "An earlier call has begun to write the messages to stdout, and how far it came cannot be"
                f" known. {AGAIN}"
            )
        lines = _lines(messages)
        if stat.S_ISREG(os.fstat(1).st_mode):
            # A file may become a messages file, in which no line may be blank.
            PlainLines(lambda data: os.write(1, data)).write(lines)
        else:
            StreamChannel("stdout").write(lines)
        return ""


class _MessagesFile:
    """A messages file, or a place that takes lines, such as a named pipe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = str(path)

    def _content(self, start: int = 0) -> list[bytes]:
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):
                return []
            with self._path.open("rb") as file:
                file.seek(start)
                return _messages(file.read().split(b"\n"))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ReplayError(f"{self.place} cannot be read: {error.strerror}.") from None

    def holds(self, messages: Sequence[bytes]) -> bool:
        there = self._content()
        size = len(messages)
        return any(
            line == messages[0] and there[at : at + size] == messages
            for at, line in enumerate(there)
        )

    def position(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._path.stat().st_size
        return 0

    def deliver(self, messages: Sequence[bytes], position: int, *, resumes: bool) -> str:
        content = self._content()
        if resumes:
            if self._path.exists() and not self._path.is_file():
                raise ReplayError(f"How far an earlier call came cannot be known. {AGAIN}")
            if self.holds(messages):
                return ""
            there = iter(self._content(position))
            # Others may have appended between them.
            done = 0
            while done < len(messages) and messages[done] in there:
                done += 1
            messages = messages[done:]
        if content and content[-1].startswith(CLOSED_HEAD):
            return self._deliver_before_closed(messages)
        try:
            with contextlib.closing(FileChannel(self.place, FILLER, last=CLOSED_HEAD)) as channel:
                channel.write(_lines(messages))
        except FileNotFoundError as error:
            raise ReplayError(f"The folder of {self.place} is not there.") from error
        return ""

    def _deliver_before_closed(self, messages: Sequence[bytes]) -> str:
        _refuse_second_closed(messages, self.place)
        lines = self._path.read_bytes().splitlines(keepends=True)
        last = max(at for at, line in enumerate(lines) if line.strip().startswith(CLOSED_HEAD))
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            with beside.open("xb") as file:
                shutil.copymode(self._path, beside)
                file.write(b"".join(lines[:last]) + _lines(messages) + b"".join(lines[last:]))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        finally:
            beside.unlink(missing_ok=True)
        return (
            " Its session is closed, so they were put before `closed`: a Dagster that has read the file"
            " does not read it again."
        )


class _Objects:
    """Numbered objects.

    Args:
        place: Where they are.
        names: Gives the names of what is there.
        get: Reads an object.
        put: Stores an object; may be repeated.
    """

    def __init__(
        self,
        place: str,
        names: Callable[[], Iterable[str]],
        get: Callable[[int], bytes],
        put: Callable[[int, bytes], object],
    ) -> None:
        self.place = place
        self._names = names
        self._get = get
        self._put = put

    def _last(self) -> int:
        numbers = {int(name[:-5]) for name in self._names() if name[:-5].isdecimal()}
        # A reader stops at the first number that is not there.
        return next(number for number in range(len(numbers) + 1) if number + 1 not in numbers)

    def holds(self, messages: Sequence[bytes]) -> bool:
        there: list[bytes] = []
        for number in range(1, self._last() + 1):
            there += _messages(self._get(number).split(b"\n"))
        size = len(messages)
        return any(there[at : at + size] == messages for at in range(len(there)))

    def position(self) -> int:
        last = self._last()
        is_closed = last and _messages(self._get(last).split(b"\n"))[-1].startswith(CLOSED_HEAD)
        return last if is_closed else last + 1

    def deliver(self, messages: Sequence[bytes], position: int, *, resumes: bool) -> str:
        before: list[bytes] = []
        if position == self._last():
            before = _messages(self._get(position).split(b"\n"))
            if resumes and before[-len(messages) :] == messages:
                return ""
            if resumes and before[-len(messages) - 1 : -1] == messages:
                return ""
        note = ""
        lines = list(messages)
        if before and before[-1].startswith(CLOSED_HEAD):
            _refuse_second_closed(messages, self.place)
            lines = [*before[:-1], *messages, before[-1]]
            note = (
                " The session there is closed, so they were put before `closed`, into an object that was"
                " there: a Dagster that has read it does not read it again."
            )
        channel = ObjectStoreChannel(
            lambda index, data: self._put(position + index - 1, data),
            place=self.place,
            interval=10,
        )
        channel.write(_lines(lines))
        return note


def _folder(path: Path) -> _Target:
    channel = PipesBufferedFilesystemMessageWriterChannel(str(path))
    return _Objects(
        str(path),
        lambda: [entry.name for entry in path.glob("*.json")],
        lambda number: (path / f"{number}.json").read_bytes(),
        channel._put,  # noqa: SLF001 because it is how a session stores an object
    )


def _store(url: str) -> _Target:
    try:
        import obstore  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415 because only stores need it
        from obstore.store import from_url  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415
    except ModuleNotFoundError:
        raise ReplayError(
            "A store needs the package obstore. Install it with: pip install obstore"
        ) from None
    try:
        store: Any = from_url(url)
    except Exception as error:
        raise ReplayError(f"{url} names no store: {error}") from error

    def names() -> list[str]:
        found = obstore.list_with_delimiter(store)["objects"]
        return [entry["path"].rpartition("/")[2] for entry in found]

    return _Objects(
        url.rstrip("/"),
        names,
        lambda number: bytes(obstore.get(store, f"{number}.json").bytes()),
        lambda number, data: obstore.put(store, f"{number}.json", data[:-1]),
    )


def _refuse_second_closed(messages: Sequence[bytes], place: str) -> None:
    if any(message.startswith(CLOSED_HEAD) for message in messages):
        raise ReplayError(
            f"The session in {place} is closed, and the messages close one too: they belong elsewhere."
        )


def _lines(messages: Iterable[bytes]) -> bytes:
    return b"".join(message + b"\n" for message in messages)
