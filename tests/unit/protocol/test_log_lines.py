"""Log texts become the lines that `json.dumps` would make, in bulk and joined."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagsterpipes._protocol.log_lines import (
    LEVEL_TAGS,
    AdaptiveLogRenderer,
    CoalescingLogRenderer,
    LogItem,
    LogRenderer,
    level_tag,
    log_item,
    pack,
)

WARNING = LEVEL_TAGS["WARNING"]

texts = st.one_of(
    st.text(),
    st.text(st.characters(codec="ascii")),
    st.text(st.sampled_from('\x00\x01\x02\x05\x06\\u0012"\n\x7f\ud800')),
)
logs = st.tuples(st.sampled_from(list(LEVEL_TAGS)), texts)


def items_of(said: list[tuple[str, str] | bytes]) -> list[LogItem]:
    return [one if isinstance(one, bytes) else log_item(LEVEL_TAGS[one[0]], one[1]) for one in said]


def parsed(lines: bytes) -> list[Any]:
    assert lines.isascii()
    return [json.loads(line) for line in lines.splitlines()]


def message(level: str, text: str) -> dict[str, Any]:
    return {
        "__dagster_pipes_version": "0.1",
        "method": "log",
        "params": {"level": level, "message": text},
    }


OTHER = b'{"other": 1}\n'


@given(st.lists(st.one_of(logs, st.just(OTHER)), max_size=30))
def test_every_message_is_one_line_in_order(said: list[tuple[str, str] | bytes]) -> None:
    """Any texts, also with tags and escapes in them, come back as they were said."""
    wanted = [json.loads(one) if isinstance(one, bytes) else message(*one) for one in said]
    for items in (items_of(said), pack(items_of(said)), pack(list(pack(items_of(said))))):
        assert parsed(LogRenderer().render(list(items), 0.0, everything=True)) == wanted


def test_texts_are_packed_into_few_small_pieces() -> None:
    """Less memory than the texts take; whatever a character is escaped to, no piece is huge."""
    texts = [f"processed row {i}" for i in range(1000)]
    (piece,) = pack([*texts])
    assert sys.getsizeof(piece) < 0.4 * sum(map(sys.getsizeof, texts))
    pieces = pack(["\U0001f600" * 1000] * 400)
    assert max(map(len, pieces)) < 1 << 20
    assert sum(map(len, pieces)) > 400 * 1000 * 12
    assert pack([OTHER, *texts, OTHER, OTHER]) == [OTHER, piece, OTHER, OTHER]


def test_large_runs_are_rendered_in_chunks() -> None:
    """A run longer than a chunk loses nothing at the seams."""
    said = [("INFO", f'line {i} "quoted"' if i % 3 else f"line {i}") for i in range(4501)]
    packed = pack([text for _, text in said])
    rendered = LogRenderer().render([*packed], 0.0, everything=False)
    assert parsed(rendered) == [message(*one) for one in said]


def unjoined(rendered: bytes) -> list[object]:
    """Level and text of each line of the log messages, and the other messages."""
    got: list[object] = []
    for one in parsed(rendered):
        if "other" in one:
            got.append(OTHER)
        else:
            got.extend(
                (one["params"]["level"], line) for line in one["params"]["message"].split("\n")
            )
    return got


def lines_of(said: list[tuple[str, str] | bytes]) -> list[object]:
    """The same of what was sent."""
    wanted: list[object] = []
    for one in said:
        if isinstance(one, bytes):
            wanted.append(one)
        else:
            wanted.extend((one[0], line) for line in one[1].split("\n"))
    return wanted


class TestCoalescing:
    @given(st.lists(st.one_of(logs, st.just(OTHER)), max_size=30), st.integers(1, 5))
    def test_loses_and_reorders_nothing(
        self, said: list[tuple[str, str] | bytes], max_lines: int
    ) -> None:
        """Joined or not, the texts of each level run and the other messages are all there."""
        renderer = CoalescingLogRenderer(1.0, max_lines=max_lines)
        rendered = renderer.render([*pack(items_of(said))], 0.0, everything=True)
        assert unjoined(rendered) == lines_of(said)
        assert renderer.due is None

    def test_holds_back_until_the_window_is_over(self) -> None:
        """Lines within the window become one message, at its end."""
        renderer = CoalescingLogRenderer(1.0)
        assert renderer.render(["a"], 10.0, everything=False) == b""
        assert renderer.due == 11.0
        assert renderer.render(["b"], 10.9, everything=False) == b""
        assert parsed(renderer.render([], 11.0, everything=False)) == [message("INFO", "a\nb")]
        assert renderer.due is None

    def test_never_delays_a_warning(self) -> None:
        """What is held back goes out before it, and the warning at once."""
        renderer = CoalescingLogRenderer(1.0)
        rendered = renderer.render(["a", (WARNING, "w")], 0.0, everything=False)
        assert parsed(rendered) == [message("INFO", "a"), message("WARNING", "w")]

    def test_never_joins_across_another_message(self) -> None:
        """A report between two lines separates them."""
        renderer = CoalescingLogRenderer(1.0)
        rendered = renderer.render(["a", OTHER, "b"], 0.0, everything=True)
        assert parsed(rendered) == [message("INFO", "a"), json.loads(OTHER), message("INFO", "b")]

    @pytest.mark.parametrize("text", ["x" * 60, "ä" * 20, "\n" * 30])
    def test_stays_within_a_page(self, text: str) -> None:
        """No joined line is longer than a page, escapes included."""
        renderer = CoalescingLogRenderer(1.0)
        rendered = renderer.render([text] * 1000, 0.0, everything=True)
        lengths = [len(line) + 1 for line in rendered.splitlines()]
        assert max(lengths) <= 4096
        assert min(lengths[:-1]) > 4096 - 2 * len(json.dumps(text))


class TestAdaptive:
    @given(
        st.lists(st.lists(st.one_of(logs, st.just(OTHER)), max_size=30), max_size=4),
        st.integers(1, 5),
        st.integers(1, 40),
        st.sampled_from([200, 1_000]),
    )
    def test_loses_and_reorders_nothing(
        self,
        batches: list[list[tuple[str, str] | bytes]],
        max_lines: int,
        burst: int,
        max_size: int,
    ) -> None:
        """Single or joined, whenever they come."""
        renderer = AdaptiveLogRenderer(burst, 10.0, max_lines=max_lines, max_size=max_size)
        rendered = b"".join(
            renderer.render([*pack(items_of(said))], number * 0.3, everything=False)
            for number, said in enumerate(batches)
        ) + renderer.render([], 9.0, everything=True)
        assert unjoined(rendered) == [line for said in batches for line in lines_of(said)]
        assert renderer.due is None

    def test_sends_singly_what_the_reader_keeps_up_with(self) -> None:
        """The burst at once, and then the rate, for ever."""
        renderer = AdaptiveLogRenderer(200, 100.0)
        assert len(parsed(renderer.render(["x"] * 200, 1.0, everything=False))) == 200
        for number in range(300):
            now = 1.0 + (number + 1) * 0.021
            rendered = renderer.render(["a", "b"], now, everything=False)
            assert parsed(rendered) == [message("INFO", "a"), message("INFO", "b")]
            assert renderer.due is None

    def test_joins_a_flood(self) -> None:
        """Of 5,000 texts at once, the burst is single and the rest is some pages of text."""
        renderer = AdaptiveLogRenderer()
        texts = [f"processed row {number} of the input table" for number in range(5_000)]
        rendered = renderer.render([*pack([*texts])], 0.0, everything=True)
        found = parsed(rendered)
        assert unjoined(rendered) == [("INFO", text) for text in texts]
        assert [one["params"]["message"] for one in found[:200]] == texts[:200]
        assert len(found) < 275

    def test_holds_back_until_there_is_a_token(self) -> None:
        """Not longer than the rate says."""
        renderer = AdaptiveLogRenderer(1, 10.0)
        assert parsed(renderer.render(["a", "b"], 5.0, everything=False)) == [message("INFO", "a")]
        assert renderer.due == 5.1
        assert renderer.render(["c"], 5.05, everything=False) == b""
        assert renderer.due == pytest.approx(5.1)
        assert parsed(renderer.render([], 5.1001, everything=False)) == [message("INFO", "b\nc")]
        assert renderer.due is None

    def test_never_delays_a_warning(self) -> None:
        """What is held back goes out before it, and the warning at once."""
        renderer = AdaptiveLogRenderer(1, 0.001)
        rendered = renderer.render(["a", "b", (WARNING, "w")], 0.0, everything=False)
        assert parsed(rendered) == [
            message("INFO", "a"),
            message("INFO", "b"),
            message("WARNING", "w"),
        ]

    @pytest.mark.parametrize("text", ["x" * 60, "ä" * 20, "\n" * 30, "", "x" * 5_000])
    def test_stays_within_a_page(self, text: str) -> None:
        """No joined line is longer than a page; a text that is longer is a message of its own."""
        renderer = AdaptiveLogRenderer(1, 0.001)
        rendered = renderer.render([text] * 3_000, 0.0, everything=True)
        lengths = [len(line) + 1 for line in rendered.splitlines()]
        assert max(lengths) <= max(4096, len(json.dumps(text)) + 120)
        assert sum(len(line.split("\n")) for line in messages_of(rendered)) == (
            3_000 * len(text.split("\n"))
        )


def messages_of(rendered: bytes) -> list[str]:
    return [one["params"]["message"] for one in parsed(rendered)]


@pytest.mark.parametrize(("number", "name"), [(0, "DEBUG"), (25, "INFO"), (99, "CRITICAL")])
def test_the_tag_of_a_number(number: int, name: str) -> None:
    """It is that of the nearest level at or below."""
    assert level_tag(number) == LEVEL_TAGS[name]
