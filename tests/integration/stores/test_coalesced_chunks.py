"""Many logs in one object are joined, so that Dagster can follow; few are sent one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dagsterpipes import open_dagster_pipes
from dagsterpipes._protocol.log_lines import MOST_MESSAGES
from support.stores import S3, methods, texts

if TYPE_CHECKING:
    from dagsterpipes import PipesContext


@pytest.fixture
def launched(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in s3.env().items():
        monkeypatch.setenv(name, value)
    return s3


def log(pipes: PipesContext, count: int) -> list[str]:
    sent = [f'"line" {number} ä' for number in range(count)]
    for text in sent:
        pipes.log.info(text)
    return sent


@pytest.mark.parametrize(
    ("count", "window", "most"),
    [
        (MOST_MESSAGES, None, MOST_MESSAGES),
        (12_000, None, 30),
        (12_000, 0, 12_000),
        (10, 2.0, 1),
    ],
)
def test_logs_in_one_object(count: int, window: float | None, most: int, launched: S3) -> None:
    """Joined if they are many, or if asked for; every text is there, in order."""
    with open_dagster_pipes(**launched.parts(), coalesce_logs=window) as pipes:
        sent = log(pipes, count)
    messages = launched.messages()
    assert texts(messages) == sent
    logs = methods(messages).count("log")
    assert logs <= most
    assert logs == count or count > MOST_MESSAGES or window


def test_reports_keep_their_place(launched: S3) -> None:
    """Nothing is joined across a report or a change of level."""
    with open_dagster_pipes(**launched.parts()) as pipes:
        log(pipes, 300)
        pipes.report_custom_message({"at": 300})
        log(pipes, 300)
        pipes.log.warning("warning")
        log(pipes, 300)
    messages = launched.messages()
    seen: list[int | str] = []
    for one in messages:
        if one["method"] == "log":
            level, count = one["params"]["level"], len(texts([one]))
            seen.append(count if level == "INFO" else level)
        else:
            seen.append(one["method"])
    joined: list[int | str] = []
    for item in seen:
        if isinstance(item, int) and joined and isinstance(joined[-1], int):
            joined[-1] += item
        else:
            joined.append(item)
    assert joined == ["opened", 300, "report_custom_message", 300, "WARNING", 300, "closed"]
