"""Counts the calls that the delivery makes to the operating system, and lets the n-th one fail."""

from __future__ import annotations

import errno
import functools
import io
import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dagsterpipes._delivery import drain, recovery
from dagsterpipes._delivery.channels import file, stream
from dagsterpipes._delivery.channels import posix as typed_posix
from dagsterpipes._delivery.channels.object_store import ReaderPace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

posix: Any = typed_posix

PAGE = 4096


class Outcome(NamedTuple):
    """What becomes of a call: an error instead of it, a part of it, or the end of the process."""

    name: str
    error: int = 0
    # Bytes that a write or read leaves out; -1 for all that is behind the last end of a page, -2 for all.
    short: int = 0
    # The call is made all the same.
    is_made: bool = False
    kills: bool = False


def _errors(*names: str, is_made: bool = False) -> list[Outcome]:
    return [Outcome(name, getattr(errno, name), is_made=is_made) for name in names]


_SHORT = [Outcome("one byte less", short=1), Outcome("up to a page", short=-1)]
_DISK = _errors("EINTR", "EAGAIN", "ENOSPC", "EIO", "EDQUOT", "ESTALE", "EBADF")
OUTCOMES: dict[str, list[Outcome]] = {
    "FileIO.write": [*_SHORT, Outcome("nothing", short=-2), *_DISK],
    "write": [*_SHORT, *_DISK],
    "pwrite": [*_SHORT, *_DISK],
    "pread": [Outcome("one byte less", short=1), *_errors("EINTR", "EIO", "ESTALE")],
    "open": _errors("EINTR", "EMFILE", "ENOSPC", "EIO", "EDQUOT", "ESTALE"),
    "FileIO": _errors("EINTR", "EIO", "ESTALE"),
    "SEEK_END": _errors("EIO", "ESTALE"),
    "ftruncate": _errors("EINTR", "EIO", "ENOSPC", "EDQUOT", "ESTALE"),
    "fstat": _errors("EIO", "ESTALE"),
    "fstatvfs": _errors("EINTR", "EIO", "ESTALE", "ENOSYS"),
    "close": _errors("EINTR", "EIO", "ENOSPC", "EDQUOT", is_made=True),
    "fsync": _errors("EINTR", "EIO", "ENOSPC", "EDQUOT"),
    "dup": _errors("EMFILE", "EINTR"),
    "utime": _errors("EPERM", "EIO", "ESTALE"),
    "flock": _errors("EINTR", "EAGAIN", "ENOLCK", "EIO", "ESTALE"),
    "O_DIRECT": _errors("EINVAL", "EIO"),
    "no O_APPEND": _errors("EPERM"),
    "F_DUPFD": _errors("EMFILE"),
    "fallocate": _errors("EINTR", "ENOSPC", "EIO", "EDQUOT", "EOPNOTSUPP"),
    "put": [*_errors("EIO", "ECONNRESET"), *_errors("ECONNRESET", is_made=True)],
}
"""What can become of each kind of call. What is not here does not fail while the descriptor is open."""

PART_THEN_ERROR = Outcome("a part, then ENOSPC", errno.ENOSPC, short=-1)
"""As on a full disk: a write that is cut, and later ones that fail."""

KILLS = [Outcome("killed before", kills=True), Outcome("killed after", kills=True, is_made=True)]

_OF_OS = ["open", "lseek", "ftruncate", "pread", "pwrite", "fstat", "fstatvfs", "close", "write"]
_OF_OS += ["utime", "dup", "fsync"]


class Calls:
    """The calls of one run.

    Args:
        at: The number of the call that fails, from 1; 0 for none.
        outcome: What becomes of it.
        for_good: Every later call of its kind to the messages' file fails so too.
        path: The messages' file.
    """

    def __init__(
        self, at: int = 0, outcome: Outcome | None = None, *, for_good: bool = False, path: str = ""
    ) -> None:
        self.kinds: list[str] = []
        # The call that failed, once it has.
        self.hit = ""
        self._at = at
        self._outcome = outcome
        self._for_good = for_good
        self._path = path

    def __call__(self, kind: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        kind = _kind(kind, args)
        self.kinds.append(kind)
        if self._is_hit(kind, args):
            assert self._outcome is not None
            outcome = self._outcome
            if outcome == PART_THEN_ERROR:
                outcome = outcome._replace(error=0) if not self.hit else outcome._replace(short=0)
            self.hit = kind
            return _apply(outcome, kind, call, args, options)
        return call(*args, **options)

    def _is_hit(self, kind: str, args: tuple[Any, ...]) -> bool:
        if len(self.kinds) == self._at:
            assert self._outcome is not None
            if self._outcome == PART_THEN_ERROR:
                return kind == "FileIO.write"
            return self._outcome.kills or self._outcome in OUTCOMES.get(kind, ())
        return (
            self._for_good
            and len(self.kinds) > self._at > 0
            and kind == self.hit
            and (kind == "put" or self._is_messages_file(args[0]))
        )

    def _is_messages_file(self, place: Any) -> bool:
        try:
            ours = Path(self._path).stat()
            other = os.stat(place)  # noqa: PTH116 because it may be a descriptor
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (other.st_dev, other.st_ino)


def _kind(name: str, args: tuple[Any, ...]) -> str:
    """What a call is for, where that decides how it can fail."""
    if name == "lseek":
        return "SEEK_END" if args[2] == os.SEEK_END else "SEEK_CUR"
    if name == "fcntl" and args[1] == posix.fcntl.F_SETFL:
        before = posix.fcntl.fcntl.__wrapped__(args[0], posix.fcntl.F_GETFL)
        if args[2] & posix.O_DIRECT & ~before:
            return "O_DIRECT"
        return "no O_APPEND" if before & os.O_APPEND & ~args[2] else "F_SETFL"
    if name == "fcntl":
        return "F_GETFL" if args[1] == posix.fcntl.F_GETFL else "F_DUPFD"
    return name


def _apply(
    outcome: Outcome, kind: str, call: Callable[..., Any], args: tuple[Any, ...], options: Any
) -> Any:
    if outcome.kills:
        if outcome.is_made:
            call(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    if outcome.error:
        if outcome.is_made:
            call(*args, **options)
        if kind == "fallocate":
            return outcome.error
        raise OSError(outcome.error, os.strerror(outcome.error))
    if kind == "pread":
        return call(args[0], max(1, args[1] - 1), *args[2:])
    data = memoryview(args[1])
    if outcome.short == -2:
        return 0
    if outcome.short == -1:
        whole = len(data) // PAGE * PAGE
        count = whole if 0 < whole < len(data) else len(data) // 2
    else:
        count = len(data) - outcome.short
    return call(args[0], data[:count], *args[2:]) if count else 0


class _Namespace:
    """A module with some of its functions replaced."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def through(calls: Calls) -> Iterator[None]:
    """Make the delivery's calls go through these."""

    def of(module: Any, *names: str) -> Any:
        def replace(name: str) -> Callable[..., Any]:
            call = getattr(module, name)
            wrapper = functools.wraps(call)
            return wrapper(lambda *args, **options: calls(name, call, *args, **options))

        return _Namespace(module, **{name: replace(name) for name in names})

    class FailingFile(io.FileIO):
        def __init__(self, number: int, *args: Any, **options: Any) -> None:
            calls(
                "FileIO",
                lambda _: super(FailingFile, self).__init__(number, *args, **options),
                number,
            )

        def write(self, data: Any) -> Any:
            return calls(
                "FileIO.write",
                lambda _, part: super(FailingFile, self).write(part),
                self.fileno(),
                data,
            )

    fallocate = posix._find_fallocate()
    modules: tuple[Any, ...] = (posix, file, stream, recovery)
    posix_fcntl, bases = posix.fcntl, file.FileChannel.__bases__
    try:
        for module in modules:
            module.os = of(os, *_OF_OS)
        posix.fcntl = of(posix_fcntl, "flock", "fcntl")
        posix._fallocate = lambda *args: calls("fallocate", fallocate, *args)
        file.FileChannel.__bases__ = (FailingFile,)
        yield
    finally:
        for module in modules:
            module.os = os
        posix.fcntl = posix_fcntl
        posix._fallocate = fallocate
        file.FileChannel.__bases__ = bases


@contextmanager
def impatient() -> Iterator[None]:
    """Shorten what the delivery waits for before it tries again."""
    defaults: Any = file.FileChannel.__init__.__kwdefaults__
    before = dict(defaults), drain.FIRST_RETRY, drain.LAST_RETRY
    first_retry = ReaderPace.first_retry
    try:
        defaults.update(lock_patience=0.01, fragment_patience=0.003)
        drain.FIRST_RETRY, drain.LAST_RETRY = 0.001, 0.01
        ReaderPace.first_retry = 0.001
        yield
    finally:
        defaults.update(before[0])
        drain.FIRST_RETRY, drain.LAST_RETRY = before[1:]
        ReaderPace.first_retry = first_retry
