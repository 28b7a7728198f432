"""Deliberate mistakes in the library; each must be found by the schedules, the failing calls or the interrupts."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A mistake: in which file, what is replaced by what."""

    name: str
    file: str
    old: str
    new: str

    @property
    def module(self) -> str:
        return self.file.rpartition("/")[2].removesuffix(".py")


OUTBOX, DRAIN = "_delivery/outbox.py", "_delivery/drain.py"
DELIVERY, SESSION = "_delivery/delivery.py", "_session/session.py"
FILE, POSIX = "_delivery/channels/file.py", "_delivery/channels/posix.py"

_SEAL = "            self.sealed = True\n            self.fast_path_limit = -1\n            self._gather()\n"
_LINES_LEFT = "lines = self._channel.unwritten() or self._in_hand"

BY_SCHEDULES = [
    Mutant(
        "the seal takes what is there before it refuses",
        OUTBOX,
        _SEAL,
        "            self._gather()\n            self.sealed = True\n            self.fast_path_limit = -1\n",
    ),
    Mutant(
        "the seal ends the fast path after it took",
        OUTBOX,
        _SEAL,
        "            self.sealed = True\n            self._gather()\n            self.fast_path_limit = -1\n",
    ),
    Mutant(
        "the outbox has no lock",
        OUTBOX,
        "self._lock = threading.RLock()",
        "self._lock = threading.NoLock()",
    ),
    Mutant(
        "the drain does not hold the channel",
        DRAIN,
        "self._in_channel = threading.Lock()",
        "self._in_channel = threading.NoLock()",
    ),
    Mutant(
        "the drain looks before it says that it sleeps",
        OUTBOX,
        '            self._idle = True\n            self._update_fast_path()\n            if not self.items:\n                return "idle"\n            self._idle = False\n            self._update_fast_path()\n            return "some"',
        '            if not self.items:\n                self._idle = True\n                self._update_fast_path()\n                return "idle"\n            return "some"',
    ),
    Mutant(
        "a refused message stays",
        OUTBOX,
        "                return not self._take_back(item)",
        "                return False",
    ),
    Mutant(
        "messages come behind the last line",
        OUTBOX,
        "if self._is_complete or self._gathering",
        "if self._gathering",
    ),
    Mutant("a child keeps its parent's messages", OUTBOX, "        self.items.clear()\n", ""),
    Mutant(
        "what is held back counts as flushed",
        DRAIN,
        "self._end if self._renderer.due is None else None",
        "self._end",
    ),
    Mutant("giving up forgets the channel", DRAIN, _LINES_LEFT, "lines = self._in_hand"),
    Mutant(
        "a wake-up is remembered for ever",
        OUTBOX,
        "        with self._lock:\n            self._woken = False\n",
        "        with self._lock:\n",
    ),
    Mutant(
        "room is not given back",
        OUTBOX,
        "                if self._full:\n                    self._full = False\n                    self._update_fast_path()\n                self._progress.notify_all()",
        "                pass",
    ),
    Mutant(
        "opened is not the first",
        OUTBOX,
        "self._waiting.insert(0, line)",
        "self._waiting.append(line)",
    ),
    Mutant(
        "a close without time does not wait for the lock",
        SESSION,
        "max(LOCK_PATIENCE, deadline - time.monotonic())",
        "max(0.0, deadline - time.monotonic())",
    ),
]

# With the session of `small_sessions` that finds them.
BY_CALLS = [
    (
        Mutant(
            "a write that was cut is begun anew",
            FILE,
            "            self._done += count\n            self.end = end\n",
            "            self.end = end\n            self._done = len(self._image)\n",
        ),
        "report",
    ),
    (
        Mutant(
            "what failed is not taken back",
            FILE,
            "                self._take_back(written)\n",
            "                pass\n",
        ),
        "report",
    ),
    (
        Mutant(
            "what failed is forgotten",
            FILE,
            "                count = layout.count_whole(offset, lines, written.whole())\n",
            "                count = len(lines)\n",
        ),
        "log",
    ),
    (
        Mutant(
            "an error of the moment counts as a closed descriptor",
            POSIX,
            "        if error.errno != errno.EBADF:\n            raise\n",
            "",
        ),
        "flush",
    ),
    (
        Mutant(
            "less than was asked for is read",
            POSIX,
            "        while len(part) < step:",
            "        while False:",
        ),
        "company",
    ),
    (
        Mutant(
            "an object is not put again",
            "_delivery/channels/object_store.py",
            "                raise self._failure(error) from error\n            self._count += 1\n",
            "                self._state = (b'', rest)\n                raise self._failure(error) from error\n            self._count += 1\n",
        ),
        "store",
    ),
    (
        Mutant(
            "a stream begins its line anew",
            "_delivery/channels/stream.py",
            "                done += self._write_at(lines, done)\n",
            "                self._write_at(lines, done)\n                done = lines.index(b'\\n', done) + 1\n",
        ),
        "stream",
    ),
]
