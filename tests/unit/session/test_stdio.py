"""The parts of the stdio capture that need no process of their own."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagsterpipes._protocol.envelope import PAGE_SIZE
from dagsterpipes._protocol.messages import external_stream
from dagsterpipes._session.stdio import StdioCapture
from dagsterpipes._session.stdio import capture as capture_module
from dagsterpipes._session.stdio.reader import (
    LineChunker,
    chunks,
    escaped_length,
)
from dagsterpipes._session.stdio.taps import TeeText, reaches
from dagsterpipes.exceptions import ChannelError

# Every way in which a character can grow in JSON: not, to 2, to 6 and to 12 bytes.
TEXT = st.text(
    st.one_of(
        st.sampled_from('ab \n\n\t"\\\r'),
        st.sampled_from("\0\x1b\x7fé\ud800\u2028漢"),
        st.sampled_from("😀𝄞"),
    ),
    max_size=400,
)


def line_at(text: str, position: int) -> str:
    """The line of ``text``, newline included, that goes on at ``position``."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position) + 1
    return text[start : end or len(text)]


@given(TEXT, st.integers(min_value=12, max_value=120))
def test_chunks_are_the_text_and_keep_the_limit(text: str, limit: int) -> None:
    """Whatever the text, nothing is lost or added and no piece is over the limit."""
    pieces = list(chunks(text, limit))
    assert "".join(pieces) == text
    assert all(0 < escaped_length(piece) <= limit for piece in pieces)


@given(TEXT, st.integers(min_value=12, max_value=120))
def test_chunks_divide_only_lines_that_are_too_long(text: str, limit: int) -> None:
    """A cut inside a line means that the line does not fit into a piece of its own."""
    position = 0
    for piece in list(chunks(text, limit))[:-1]:
        position += len(piece)
        assert piece.endswith("\n") or escaped_length(line_at(text, position)) > limit


def test_chunks_are_cut_after_lines() -> None:
    """As many whole lines as fit go together; the last line needs no newline."""
    assert list(chunks("a\nb\ncccc\ndddddddd\neeeeee", 14)) == [
        "a\nb\ncccc\n",
        "dddddddd\n",
        "eeeeee",
    ]


def test_chunks_keep_a_line_whole_before_text_that_grows() -> None:
    """A line that fits stays whole although the average expansion of its surroundings is large."""
    line = "x" * 900 + "\n"
    assert next(chunks(line + "😀" * 1000, 1000)) == line


def test_chunks_fill_their_limit() -> None:
    """Short lines go together: 4,000 of 80 characters need no more than 83 pieces of a page."""
    text = ("x" * 79 + "\n") * 4000
    assert len(list(chunks(text))) <= 83


def test_chunks_refuse_a_limit_that_one_character_can_exceed() -> None:
    """Without room for the longest escape the work would never end, so it is refused."""
    with pytest.raises(ValueError, match=r"^limit must be at least 12, got 11$"):
        list(chunks("x", 11))


@pytest.mark.parametrize("unit", ["x", "\n", "\0", "é", "😀", '"', "ab\n"])
def test_a_message_of_the_default_limit_fits_a_page(unit: str) -> None:
    """A message is a page long, newline included, or a little less."""
    piece = next(chunks(unit * 5000))
    assert PAGE_SIZE - 12 < len(external_stream("stderr", piece, None)) <= PAGE_SIZE


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_chunker_output_does_not_depend_on_the_reads(reads: list[bytes]) -> None:
    """However the bytes are cut into reads, their text is that of the bytes in one piece."""
    lines = LineChunker(limit=30)
    pieces = [piece for read in reads for piece in lines.feed(read)] + lines.finish()
    assert "".join(pieces) == b"".join(reads).decode("utf-8", "backslashreplace")
    assert all(0 < escaped_length(piece) <= 30 for piece in pieces)
    assert lines.held == ""


def test_chunker_hands_out_whole_lines_and_holds_the_rest() -> None:
    """What has its newline comes at once; the beginning of a line waits for its end."""
    lines = LineChunker()
    assert lines.feed(b"one\ntwo\nthr") == ["one\ntwo\n"]
    assert lines.held == "thr"
    assert lines.feed(b"ee\n") == ["three\n"]
    assert lines.release() == []


def test_chunker_does_not_hold_more_than_one_piece() -> None:
    """A line without an end is handed out as it fills pieces, so memory is bounded."""
    lines = LineChunker(limit=100)
    pieces = lines.feed(b"x" * 1050)
    assert [len(piece) for piece in pieces] == [100] * 10
    assert lines.held == "x" * 50


def test_chunker_releases_the_unfinished_line_once() -> None:
    """A prompt is handed out when asked for, and what follows is a piece of its own."""
    lines = LineChunker()
    assert lines.feed(b"Name: ") == []
    assert lines.release() == ["Name: "]
    assert lines.release() == []
    assert lines.feed(b"Ada\n") == ["Ada\n"]


def test_chunker_joins_a_character_that_was_cut_in_two() -> None:
    """Half a character is neither lost nor spoilt, also not by handing out the line before it."""
    lines = LineChunker()
    assert lines.feed("x€".encode()[:-1]) == []
    assert lines.release() == ["x"]
    assert lines.feed("€\n".encode()[-2:]) == ["€\n"]


def test_chunker_shows_bytes_that_are_not_utf8() -> None:
    """Every such byte arrives in a form that can be read and that any UTF-8 stream can print."""
    lines = LineChunker()
    text = "".join([*lines.feed(b"caf\xe9 \xff\n\xe2\x82"), *lines.finish()])
    assert text == "caf\\xe9 \\xff\n\\xe2\\x82"
    assert text.encode("utf-8")


def test_tee_writes_to_its_stream_first_and_sends_a_copy() -> None:
    """The stand-in gives what the stream gives, and what the stream refuses is not sent."""
    inner, sent = io.StringIO(), list[str]()
    tee = TeeText(inner, sent.append)
    assert tee.write("one\n") == 4
    tee.writelines(["two\n", "three\n"])
    print("four", file=tee)
    assert inner.getvalue() == "".join(sent) == "one\ntwo\nthree\nfour\n"
    assert tee.seekable() is True
    inner.close()
    with pytest.raises(ValueError, match="closed file"):
        tee.write("five\n")
    assert "five\n" not in sent


class HomeMadeTee:
    """What scripts put into ``sys.stdout`` to have a log file as well."""

    def __init__(self, *files: object) -> None:
        self.files = list(files)

    def write(self, text: str) -> None:
        """Write nowhere: only its looks count."""


def test_reaches_knows_files_and_home_made_tees() -> None:
    """A stream leads to a descriptor by its own `fileno` or through a file that it keeps."""
    with open(0, closefd=False) as real:
        assert reaches(real, [0])
        assert not reaches(real, [1, 2])
        assert reaches(HomeMadeTee(io.StringIO(), real), [0])
        assert not reaches(HomeMadeTee(io.StringIO()), [0])
        assert not reaches(io.StringIO(), [0, 1, 2])
        assert not reaches(object(), [0, 1, 2])


def test_start_says_what_to_do_where_pipes_cannot_be_polled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows the start is refused by an error of ours, and the streams are untouched."""
    monkeypatch.setattr(capture_module, "supported", lambda: False)
    monkeypatch.setattr(sys, "platform", "win32")
    before = sys.stdout
    with pytest.raises(ChannelError) as caught:
        StdioCapture(lambda _stream, _text: None).start()
    assert str(caught.value) == (
        "stdout and stderr cannot be captured on win32, which has no poll() on pipes;"
        " switch the capture off (include_stdio_in_messages, capture_stdio)"
    )
    assert sys.stdout is before


def test_stop_without_start_does_nothing() -> None:
    """A session that never got as far as its capture can be closed all the same."""
    capture = StdioCapture(lambda _stream, _text: None)
    assert capture.stop(1.0)
    assert (capture.error, capture.lost) == (None, 0)
