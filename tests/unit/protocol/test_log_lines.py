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


class TestCoalescing:
    @given(st.lists(st.one_of(logs, st.just(OTHER)), max_size=30), st.integers(1, 5))
    def test_loses_and_reorders_nothing(
        self, said: list[tuple[str, str] | bytes], max_lines: int
    ) -> None:
        """Joined or not, the texts of each level run and the other messages are all there."""
        renderer = CoalescingLogRenderer(1.0, max_lines=max_lines)
        rendered = renderer.render([*pack(items_of(said))], 0.0, everything=True)
        got: list[object] = []
        for one in parsed(rendered):
            if "other" in one:
                got.append(OTHER)
            else:
                got.extend(
                    (one["params"]["level"], line) for line in one["params"]["message"].split("\n")
                )
        wanted: list[object] = []
        for one in said:
            if isinstance(one, bytes):
                wanted.append(one)
            else:
                wanted.extend((one[0], line) for line in one[1].split("\n"))
        assert got == wanted
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


@pytest.mark.parametrize(("number", "name"), [(0, "DEBUG"), (25, "INFO"), (99, "CRITICAL")])
def test_the_tag_of_a_number(number: int, name: str) -> None:
    """It is that of the nearest level at or below."""
    assert level_tag(number) == LEVEL_TAGS[name]
