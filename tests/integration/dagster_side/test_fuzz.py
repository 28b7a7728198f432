"""Mutated messages, by the thousand: the reader never stops, and what stands between them arrives."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes._reader.tail import LineTail
from dagsterpipes.dagster import PipesTempFileMessageReader
from dagsterpipes.dagster.ingest import MAX_WARNINGS, Ingest
from support.dagster_side import all_logs, instance, materialize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:::dagster")

SESSIONS, MUTATIONS = 10, int(os.environ.get("DAGSTERPIPES_MUTATIONS", "4000"))
METADATA = {
    "rows": {"raw_value": 3, "type": "int"},
    "share": {"raw_value": 0.5, "type": "float"},
    "when": {"raw_value": 1.7e9, "type": "timestamp"},
    "table": {
        "raw_value": {"records": [{"a": 1}], "schema": [{"name": "a", "type": "int"}]},
        "type": "table",
    },
    "deps": {
        "raw_value": {"deps_by_column": {"a": [{"asset_key": ["x"], "column_name": "y"}]}},
        "type": "table_column_lineage",
    },
}
ERROR = {"message": "m", "stack": ["s"], "name": "E", "cause": None, "context": None}
SEEDS: list[tuple[str, dict[str, Any]]] = [
    ("opened", {"extras": {}}),
    ("log", {"message": "text", "level": "INFO"}),
    ("log", {"message": "text", "level": 20}),
    ("log_external_stream", {"stream": "stderr", "text": "", "extras": {}}),
    ("report_custom_message", {"payload": {"a": [1, 2]}}),
    (
        "report_asset_materialization",
        {"asset_key": "the_asset", "data_version": "1", "metadata": METADATA},
    ),
    (
        "report_asset_check",
        {
            "asset_key": "the_asset",
            "check_name": "c",
            "passed": True,
            "severity": "ERROR",
            "metadata": {},
        },
    ),
    ("closed", {"exception": {**ERROR, "cause": ERROR}}),
]
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1e400,
    "",
    "x",
    "\ud800",
    [],
    {},
    [None],
    {"a": {}},
    10**400,
]


def walk(value: Any) -> list[tuple[Any, Any]]:
    """Each place in a JSON value: its container and its key."""
    places: list[tuple[Any, Any]] = []
    rows = [value]
    while rows:
        container = rows.pop()
        keys = container if isinstance(container, dict) else range(len(container))
        for key in keys:
            places.append((container, key))
            if isinstance(container[key], (dict, list)):
                rows.append(container[key])
    return places


def change_value(message: Any, chance: random.Random) -> None:
    container, key = chance.choice(walk(message))
    container[key] = copy.deepcopy(chance.choice(VALUES))


def remove_key(message: Any, chance: random.Random) -> None:
    container, key = chance.choice(walk(message))
    del container[key]


def add_key(message: Any, chance: random.Random) -> None:
    container, key = chance.choice(walk(message))
    if isinstance(container, dict):
        container[chance.choice(["exception", "level", "extras", "\x00", "type"])] = container[key]


def change_bytes(line: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(line))
    end = min(len(line), start + chance.choice([0, 1, 1, 7, 60, 4_096]))
    middle = chance.choice(
        [
            b"",
            chance.randbytes(end - start),
            line[start:end] * 2,
            b"\0" * 9,
            b"\n",
            b"\r",
            b"[" * 2_000,
        ]
    )
    return line[:start] + middle + line[end:]


BY_MESSAGE: list[Callable[[Any, random.Random], None]] = [change_value, remove_key, add_key]


def mutation(chance: random.Random) -> bytes:
    """A message that is wrong in one to three ways."""
    method, params = chance.choice(SEEDS)
    message = {"__dagster_pipes_version": "0.1", "method": method, "params": params}
    message = json.loads(json.dumps(message))
    for _ in range(chance.choice([0, 1, 1, 2])):
        chance.choice(BY_MESSAGE)(message, chance)
    line = json.dumps(message).encode()
    if chance.random() < 0.6:
        line = change_bytes(line, chance)
    return line


def test_nothing_stops_the_reader(home: Path) -> None:
    """All lines between the mutations arrive, in order; warnings stay few; nothing is raised."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    each = MUTATIONS // SESSIONS
    expected, broken = [], []

    def body(context: Any) -> None:
        from dagster._core.pipes.context import PipesMessageHandler

        for session in range(SESSIONS):
            parts = []
            for number in range(each):
                text = f"sentinel {session} {number}"
                sentinel = json.dumps({"method": "log", "params": {"message": text}})
                parts += [mutation(chance), b"\n", sentinel.encode(), b"\n"]
                expected.append(text)
            handler = PipesMessageHandler(context, PipesTempFileMessageReader())
            ingest = Ingest(handler, time.monotonic)
            assert ingest.is_batched
            tail = LineTail(io.BytesIO(b"".join(parts) + mutation(chance)), time.monotonic)
            while not tail.at_end:
                for line in tail.lines():
                    ingest.take(line)
            rest = tail.rest()
            if rest is not None:
                ingest.take(rest)
            ingest.finish()
            broken.append(ingest.failures())

    with instance(home) as opened:
        run = materialize(opened, body)
    assert run.success, (seed, run.pipes_errors())
    logs = all_logs(run)
    assert [text for _, text in logs if text.startswith("sentinel")] == expected, seed
    ours = [text for _, text in logs if "breaks the rule" in text]
    assert len(ours) == SESSIONS * MAX_WARNINGS
    assert len(expected) == MUTATIONS
    assert all(one for one in broken)
