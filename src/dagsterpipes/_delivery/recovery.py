"""The last resort: lines that could not be delivered are kept in a file.

It imports nothing when it is needed and takes no lock: it works on the way out of the interpreter,
and in a child that was forked at a bad moment.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from dagsterpipes._delivery.channels.posix import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "dagsterpipes-recovery-"


def keep(lines: bytes) -> str | None:
    """Write the lines to a new file that only this user can read; return its path.

    Tries the system's folders for temporary files, then the current folder. Returns None when none
    of them takes all of the lines.
    """
    for folder in _folders():
        path = os.path.join(folder, f"{PREFIX}{os.getpid()}-{os.urandom(6).hex()}.jsonl")  # noqa: PTH118 because pathlib is not needed for this
        try:
            own = Descriptor(os.open(path, _NEW, 0o600))
        except OSError:
            continue
        try:
            with closing(own):
                _write(own, lines)
        except OSError:
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108 because pathlib is not needed for this
            continue
        return path
    return None


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
_NEW |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)


def _write(own: Descriptor, lines: bytes) -> None:
    rest = memoryview(lines)
    while rest:
        if not own.is_ours():
            raise OSError(errno.EBADF, "somebody else closed the descriptor")
        rest = rest[os.write(own.number, rest) :]
    os.fsync(own.number)


def _folders() -> Iterator[str]:
    """Where `tempfile` looks, or what it was set to, then the current folder; absolute."""
    chosen = getattr(sys.modules.get("tempfile"), "tempdir", None)
    if isinstance(chosen, str):
        folders = [chosen]
    else:
        folders = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
        if os.name == "posix":
            folders += ["/tmp", "/var/tmp", "/usr/tmp"]  # noqa: S108 because the file is made anew, for this user
    yield from (os.path.abspath(folder) for folder in folders if folder)  # noqa: PTH100 because pathlib is not needed for this
    with suppress(OSError):  # the current folder is gone
        yield os.getcwd()  # noqa: PTH109 because pathlib is not needed for this
