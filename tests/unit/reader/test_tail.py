"""Lines of a file that grows."""

from __future__ import annotations

from dagsterpipes._reader.tail import CHUNK, LineTail, TailedLine


class GrowingFile:
    """A file whose content is added to; one read gives at most one piece."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def grow(self, *pieces: bytes) -> None:
        self._pieces += pieces

    def read(self, size: int, /) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        assert len(piece) <= size
        return piece


class Clock:
    """A clock that stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_counted_and_keep_their_newlines() -> None:
    """Each finished line is given once, in order, with its bytes untouched."""
    file = GrowingFile(b"a\n\nb\xff\r\n")
    tail = LineTail(file, Clock())
    assert list(tail.lines()) == [
        TailedLine(1, b"a\n", 0.0),
        TailedLine(2, b"\n", 0.0),
        TailedLine(3, b"b\xff\r\n", 0.0),
    ]
    assert list(tail.lines()) == []
    file.grow(b"c\n")
    assert list(tail.lines()) == [TailedLine(4, b"c\n", 0.0)]
    assert tail.rest() is None


def test_an_unfinished_line_is_awaited() -> None:
    """A line in pieces is given when its newline comes, with the time for which it was torn."""
    clock, file = Clock(), GrowingFile(b"a\nhalf")
    tail = LineTail(file, clock)
    assert list(tail.lines()) == [TailedLine(1, b"a\n", 0.0)]
    clock.now = 100.5
    assert list(tail.lines()) == []
    clock.now = 102.0
    file.grow(b" and", b" half\nb\n")
    assert list(tail.lines()) == [
        TailedLine(2, b"half and half\n", 2.0),
        TailedLine(3, b"b\n", 0.0),
    ]


def test_what_came_between_two_reads_was_not_torn() -> None:
    """A line that was cut only by the size of our reads counts as written in one piece."""
    clock = Clock()
    tail = LineTail(GrowingFile(b"half", b" and half\n"), clock)
    assert list(tail.lines()) == [TailedLine(1, b"half and half\n", 0.0)]


def test_the_rest_at_the_end() -> None:
    """What has no newline at the end of everything is given as it is."""
    clock, file = Clock(), GrowingFile(b"whole")
    tail = LineTail(file, clock)
    assert list(tail.lines()) == []
    clock.now = 105.0
    assert list(tail.lines()) == []
    assert tail.rest() == TailedLine(1, b"whole", 0.0)
    assert tail.rest() is None


def test_a_rest_that_grew_is_torn() -> None:
    """A last line that was seen to grow was torn, newline or not."""
    clock, file = Clock(), GrowingFile(b"ha")
    tail = LineTail(file, clock)
    assert list(tail.lines()) == []
    clock.now = 101.0
    file.grow(b"lf")
    assert list(tail.lines()) == []
    assert tail.rest() == TailedLine(1, b"half", 1.0)


def test_a_flood_comes_in_portions() -> None:
    """One call reads about as much as it is told to, and says when there is more."""
    tail = LineTail(GrowingFile(*[b"x\n"] * 5), Clock())
    assert len(list(tail.lines(limit=3 * CHUNK))) == 3
    assert not tail.at_end
    assert len(list(tail.lines(limit=3 * CHUNK))) == 2
    assert tail.at_end


def test_a_line_over_many_reads() -> None:
    """A very long line is put together whole."""
    pieces = [b"x" * CHUNK] * 20
    tail = LineTail(GrowingFile(*pieces, b"\n"), Clock())
    given = [line for _ in range(5) for line in tail.lines()]
    assert [len(line.data) for line in given] == [20 * CHUNK + 1]
    assert given[0].torn_for == 0.0
