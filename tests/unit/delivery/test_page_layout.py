"""Where lines lie in pages: nothing lost, nothing across a boundary, little wasted."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagsterpipes._delivery.page_layout import RUNWAY_COVERS, RUNWAY_PAGES, PageLayout

PAGE = 64
FILLER = b"{filler}"
LEAST_REST = len(FILLER) + 1
RUNWAY = RUNWAY_PAGES * PAGE

short_lines = st.integers(1, PAGE - 1).map(lambda size: b"s" * size + b"\n")
long_lines = st.integers(PAGE, 5 * PAGE).map(lambda size: b"l" * size + b"\n")
any_lines = st.one_of(short_lines, short_lines, short_lines, long_lines)


def batches_of(lines: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[list[bytes]]]:
    return st.lists(st.lists(lines, max_size=12), max_size=6)


def spans(image: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """Where each line begins, and the line."""
    lines = image.splitlines(keepends=True)
    starts = accumulate((len(line) for line in lines), initial=offset)
    return list(zip(starts, lines, strict=False))


def payload(image: bytes) -> list[bytes]:
    return [
        line[:-1].rstrip(b" ") + b"\n" for _, line in spans(image) if not line.startswith(FILLER)
    ]


def crosses(start: int, line: bytes) -> bool:
    return start // PAGE != (start + len(line) - 1) // PAGE


def write_all(layout: PageLayout, batches: list[list[bytes]]) -> list[bytes]:
    images: list[bytes] = []
    for batch in batches:
        images.append(layout.render(sum(map(len, images)), b"".join(batch)))
    return images


@given(batches_of(any_lines), st.sampled_from([FILLER, None]))
def test_every_line_is_there_in_order(batches: list[list[bytes]], filler: bytes | None) -> None:
    """What is not a filler are the lines, followed by nothing but spaces."""
    image = b"".join(write_all(PageLayout(filler, PAGE), batches))
    assert payload(image) == [line for batch in batches for line in batch]


@given(batches_of(any_lines))
def test_no_line_of_up_to_a_page_crosses_a_boundary(batches: list[list[bytes]]) -> None:
    """With fillers, only lines that are longer than a page cross one."""
    image = b"".join(write_all(PageLayout(FILLER, PAGE), batches))
    assert all(line.startswith(b"l") for start, line in spans(image) if crosses(start, line))


@given(batches_of(short_lines))
def test_no_short_line_crosses_a_boundary_without_fillers(batches: list[list[bytes]]) -> None:
    """Spaces alone are enough, and each batch ends its page."""
    images = write_all(PageLayout(None, PAGE), batches)
    image = b"".join(images)
    assert not any(crosses(start, line) for start, line in spans(image))
    assert all(len(image) % PAGE == 0 for image in images)


@given(batches_of(any_lines), st.sampled_from([FILLER, None]))
def test_the_rest_of_the_last_page_can_be_filled(
    batches: list[list[bytes]], filler: bytes | None
) -> None:
    """After each batch the page is full, or has room for a filler."""
    end = 0
    for image in write_all(PageLayout(filler, PAGE), batches):
        end += len(image)
        rest = -end % PAGE
        assert rest == 0 or (filler is not None and rest >= LEAST_REST)


def test_no_size_leaves_a_rest_that_cannot_be_filled() -> None:
    """Whatever the length of a line, its page is full or has room for a filler."""
    for size in range(2, 3 * PAGE):
        rest = -len(PageLayout(FILLER, PAGE).render(0, b"x" * (size - 1) + b"\n")) % PAGE
        assert rest == 0 or rest >= LEAST_REST


@given(batches_of(any_lines))
def test_long_lines_follow_a_runway(batches: list[list[bytes]]) -> None:
    """Before each long line, in the same batch, there are enough pages of short whole fillers."""
    offset = 0
    for image in write_all(PageLayout(FILLER, PAGE), batches):
        run = best = 0
        for _, line in spans(image, offset):
            run = run + len(line) if line.startswith(FILLER) else 0
            best = max(best, run)
            assert not line.startswith(b"l") or best >= RUNWAY
        offset += len(image)


def test_a_runway_is_as_short_lines_as_possible() -> None:
    """The reader has to read a line for every few bytes of the runway."""
    image = PageLayout(FILLER, PAGE).render(0, b"l" * PAGE + b"\n")
    fillers = [line for _, line in spans(image) if line.startswith(FILLER)]
    assert len(fillers) == RUNWAY_PAGES * (PAGE // LEAST_REST)


def test_a_filler_of_more_than_half_a_page_makes_a_runway_too() -> None:
    """One filler a page is the least."""
    image = PageLayout(FILLER, 12).render(0, b"l" * 12 + b"\n")
    assert image == (FILLER + b"   \n") * RUNWAY_PAGES + b"l" * 12 + b"\n"


def test_one_runway_is_shared() -> None:
    """Long lines that follow each other need one runway for every two megabytes."""
    layout = PageLayout(FILLER, 4096)
    runway = RUNWAY_PAGES * 4096
    line = b"l" * 99_999 + b"\n"
    shared = layout.render(0, line * 20)
    assert runway + 20 * len(line) <= len(shared) < runway + 20 * len(line) + 4096
    two = layout.render(0, line * 21)
    assert 2 * runway + 21 * len(line) <= len(two) < 2 * runway + 21 * len(line) + 2 * 4096


def test_a_line_of_many_megabytes_gets_a_longer_runway() -> None:
    """One runway for every two megabytes of the line."""
    line = b"l" * (5 * RUNWAY_COVERS // 2) + b"\n"
    image = PageLayout(FILLER, 4096).render(0, line)
    assert image.index(b"l" * 10) == 3 * RUNWAY_PAGES * 4096


@given(st.integers(0, 3 * PAGE), st.lists(any_lines, min_size=1, max_size=8))
def test_any_state_that_others_leave_is_mended(offset: int, lines: list[bytes]) -> None:
    """Behind a rest that is too short for a filler, one short line crosses; after it all is well."""
    image = PageLayout(FILLER, PAGE).render(offset, b"".join(lines))
    crossing = [
        start
        for start, line in spans(image, offset)
        if not line.startswith(b"l") and crosses(start, line)
    ]
    assert payload(image) == lines
    assert len(crossing) <= 1
    assert all(start // PAGE == offset // PAGE for start in crossing)
    if -offset % PAGE == 0 or -offset % PAGE >= LEAST_REST:
        assert not crossing


@given(st.integers(0, 3 * PAGE), st.lists(short_lines, min_size=1, max_size=8))
def test_any_state_that_others_leave_is_mended_without_fillers(
    offset: int, lines: list[bytes]
) -> None:
    """One line at most crosses, and the page is ended."""
    image = PageLayout(None, PAGE).render(offset, b"".join(lines))
    assert payload(image) == lines
    assert sum(crosses(start, line) for start, line in spans(image, offset)) <= 1
    assert (offset + len(image)) % PAGE == 0


@given(
    st.integers(0, PAGE),
    st.lists(any_lines, max_size=5),
    st.sampled_from([FILLER, None]),
    st.data(),
)
def test_cut_finds_what_is_whole(
    offset: int, lines: list[bytes], filler: bytes | None, data: st.DataObject
) -> None:
    """Wherever a write stops, it is known which lines are in the file with their newline."""
    layout = PageLayout(filler, PAGE)
    image = layout.render(offset, b"".join(lines))
    limit = data.draw(st.integers(0, len(image)))
    size, taken = layout.cut(offset, b"".join(lines), limit)
    whole = payload(image[: image.rfind(b"\n", 0, limit) + 1])
    assert b"".join(lines)[:taken] == b"".join(whole)
    assert size <= limit
    assert payload(image[:size]) == whole
    assert image[:size] == b"" or image[:size].endswith(b"\n")


@pytest.mark.parametrize("lines_at_once", [1, 2, 30, 5_000])
@pytest.mark.parametrize("size", [100, 137, 150, 166, 200])
def test_little_is_wasted_on_log_lines(lines_at_once: int, size: int) -> None:
    """At a trickle as in a flood, the file is at most a tenth larger than its lines."""
    layout = PageLayout(b"f" * 115)
    line = b"x" * (size - 1) + b"\n"
    written = 0
    for _ in range(10_000 // lines_at_once):
        written += len(layout.render(written, line * lines_at_once))
    lines = 10_000 // lines_at_once * lines_at_once
    assert written <= 1.10 * size * lines


def test_nothing_gives_nothing() -> None:
    """An empty batch writes nothing, wherever it is."""
    assert PageLayout(FILLER, PAGE).render(10, b"") == b""
    assert PageLayout(None, PAGE).render(10, b"") == b""


@given(st.integers(0, PAGE), st.lists(long_lines, max_size=3))
def test_long_lines_without_fillers_are_written_as_they_are(
    offset: int, lines: list[bytes]
) -> None:
    """Nothing helps them there; the last one ends its page."""
    image = PageLayout(None, PAGE).render(offset, b"".join(lines))
    assert payload(image) == lines
    assert not lines or (offset + len(image)) % PAGE == 0
