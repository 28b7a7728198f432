"""Where lines lie in pages: nothing lost, nothing across a boundary, little wasted."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagsterpipes._delivery.channels.page_layout import RUNWAY_COVERS, RUNWAY_PAGES, PageLayout

PAGE = 64
FILLER = b"{filler}"
LEAST_REST = len(FILLER) + 1
RUNWAY = RUNWAY_PAGES * 4096

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
    image = b"".join(write_all(PageLayout(filler, page_size=PAGE), batches))
    assert payload(image) == [line for batch in batches for line in batch]


@given(batches_of(any_lines))
def test_no_line_of_up_to_a_page_crosses_a_boundary(batches: list[list[bytes]]) -> None:
    """With fillers, only lines that are longer than a page cross one."""
    image = b"".join(write_all(PageLayout(FILLER, page_size=PAGE), batches))
    assert all(line.startswith(b"l") for start, line in spans(image) if crosses(start, line))


@given(batches_of(short_lines))
def test_no_short_line_crosses_a_boundary_without_fillers(batches: list[list[bytes]]) -> None:
    """Spaces alone are enough, and each batch ends its page."""
    images = write_all(PageLayout(None, page_size=PAGE), batches)
    image = b"".join(images)
    assert not any(crosses(start, line) for start, line in spans(image))
    assert all(len(image) % PAGE == 0 for image in images)


@given(batches_of(any_lines), st.sampled_from([FILLER, None]))
def test_the_rest_of_the_last_page_can_be_filled(
    batches: list[list[bytes]], filler: bytes | None
) -> None:
    """After each batch the page is full, or has room for a filler."""
    end = 0
    for image in write_all(PageLayout(filler, page_size=PAGE), batches):
        end += len(image)
        rest = -end % PAGE
        assert rest == 0 or (filler is not None and rest >= LEAST_REST)


def test_no_size_leaves_a_rest_that_cannot_be_filled() -> None:
    """Whatever the length of a line, its page is full or has room for a filler."""
    for size in range(2, 3 * PAGE):
        rest = -len(PageLayout(FILLER, page_size=PAGE).render(0, b"x" * (size - 1) + b"\n")) % PAGE
        assert rest == 0 or rest >= LEAST_REST


@given(batches_of(any_lines))
def test_long_lines_follow_a_runway(batches: list[list[bytes]]) -> None:
    """Before a long line, in its batch, there are pages of fillers: 64, and as many as lines."""
    for image in write_all(PageLayout(FILLER, page_size=PAGE), batches):
        lines = image.splitlines(keepends=True)
        first = next((at for at, line in enumerate(lines) if line.startswith(b"l")), None)
        if first is None:
            continue
        runway = 0
        while runway < first and lines[first - 1 - runway].startswith(FILLER):
            runway += 1
        behind = b"".join(payload(b"".join(lines[first:])))
        assert len(b"".join(lines[first - runway : first])) >= RUNWAY_PAGES * PAGE + len(behind)


def test_a_runway_is_as_short_lines_as_possible() -> None:
    """The reader has to read a line for every few bytes of the runway."""
    image = PageLayout(FILLER, page_size=PAGE).render(0, b"l" * PAGE + b"\n")
    fillers = [line for _, line in spans(image) if line.startswith(FILLER)]
    assert len(fillers) == (RUNWAY_PAGES + 2) * (PAGE // LEAST_REST)


def test_a_filler_of_more_than_half_a_page_makes_a_runway_too() -> None:
    """One filler a page is the least."""
    image = PageLayout(FILLER, page_size=12).render(0, b"l" * 12 + b"\n")
    fillers = (FILLER + b"   \n") * (RUNWAY_PAGES + 2)
    assert image == fillers + b"l" * 12 + b"\n"


def test_one_runway_is_shared() -> None:
    """Long lines that follow each other need one runway for every two megabytes."""
    line = b"l" * 99_999 + b"\n"
    for count, runways in ((1, 1), (20, 1), (21, 2), (40, 2), (41, 3)):
        image = PageLayout(FILLER).render(0, line * count)
        lines = count * len(line)
        most = lines + runways * (RUNWAY + 8192 + len(line))
        assert lines + runways * RUNWAY <= len(image) - lines < most


def test_a_line_of_many_megabytes_gets_a_longer_runway() -> None:
    """It is always as long as the line."""
    line = b"l" * (3 * RUNWAY_COVERS) + b"\n"
    image = PageLayout(FILLER).render(0, line)
    assert image.index(b"l" * 10) == RUNWAY + 3 * RUNWAY_COVERS + 4096


@given(batches_of(any_lines), st.sampled_from([FILLER, None]), st.booleans())
def test_batches_can_end_their_pages(
    batches: list[list[bytes]], filler: bytes | None, has_runways: bool
) -> None:
    """For direct writes: whole pages, and a boundary before the first long line."""
    layout = PageLayout(filler, has_runways=has_runways, ends_pages=True, page_size=PAGE)
    for image, batch in zip(write_all(layout, batches), batches, strict=True):
        assert len(image) % PAGE == 0
        assert payload(image) == batch
        crossing = [line for start, line in spans(image) if crosses(start, line)]
        assert all(line.startswith(b"l") for line in crossing)
        if filler is None or not has_runways:
            assert image.count(b"\n") <= len(batch) + len(crossing)


def test_direct_writes_fill_the_page_that_others_began() -> None:
    """The long line begins a page, and so can be written for itself."""
    layout = PageLayout(FILLER, has_runways=False, ends_pages=True, page_size=PAGE)
    image = layout.render(10, b"l" * PAGE + b"\n")
    assert image == FILLER.ljust(PAGE - 11) + b"\n" + b"l" * PAGE + b" " * (PAGE - 1) + b"\n"


@given(st.lists(any_lines, max_size=8))
def test_long_lines_are_noticed(lines: list[bytes]) -> None:
    """Those that are longer than a page, wherever they are."""
    layout = PageLayout(FILLER, page_size=PAGE)
    assert layout.has_long_line(b"".join(lines)) == any(len(line) > PAGE for line in lines)


@given(st.integers(0, 3 * PAGE), st.lists(any_lines, min_size=1, max_size=8))
def test_any_state_that_others_leave_is_mended(offset: int, lines: list[bytes]) -> None:
    """Behind a rest that is too short for a filler, one short line crosses; after it all is well."""
    image = PageLayout(FILLER, page_size=PAGE).render(offset, b"".join(lines))
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
    image = PageLayout(None, page_size=PAGE).render(offset, b"".join(lines))
    assert payload(image) == lines
    assert sum(crosses(start, line) for start, line in spans(image, offset)) <= 1
    assert (offset + len(image)) % PAGE == 0


@given(
    st.integers(0, PAGE),
    st.lists(any_lines, max_size=5),
    st.sampled_from([FILLER, None]),
    st.data(),
)
def test_it_is_known_what_is_whole(
    offset: int, lines: list[bytes], filler: bytes | None, data: st.DataObject
) -> None:
    """Wherever a write stops, it is known which lines are in the file with their newline."""
    layout = PageLayout(filler, page_size=PAGE)
    image = layout.render(offset, b"".join(lines))
    limit = data.draw(st.integers(0, len(image)))
    whole = payload(image[: image.rfind(b"\n", 0, limit) + 1])
    assert layout.count_whole(offset, b"".join(lines), limit) == sum(map(len, whole))


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
    assert PageLayout(FILLER, page_size=PAGE).render(10, b"") == b""
    assert PageLayout(None, page_size=PAGE).render(10, b"") == b""


@given(st.integers(0, PAGE), st.lists(long_lines, max_size=3))
def test_long_lines_without_fillers_are_written_as_they_are(
    offset: int, lines: list[bytes]
) -> None:
    """Nothing helps them there; the last one ends its page."""
    image = PageLayout(None, page_size=PAGE).render(offset, b"".join(lines))
    assert payload(image) == lines
    assert not lines or (offset + len(image)) % PAGE == 0
