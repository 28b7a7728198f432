"""A relay over Dask's own connections, on a real cluster of processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

cloudpickle = pytest.importorskip("cloudpickle")
distributed = pytest.importorskip("distributed")

from dagsterpipes import PipesContext  # noqa: E402
from dagsterpipes._relay.relay import open_relay  # noqa: E402
from support.relaying import KeepingSession  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("default")


# Workers cannot import a test.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _say(task: int, lines: int) -> str:
    pipes = PipesContext.get()
    for line in range(lines):
        pipes.log.info("task %d line %d", task, line)
    pipes.report_asset_materialization({"n": 1}, asset_key="a")
    return pipes.run_id


def _by_task(texts: list[str]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for text in texts:
        words = text.split("] ")[1].split()
        found.setdefault(int(words[1]), []).append(int(words[3]))
    return found


def test_tasks_report_through_the_driver(client: Any) -> None:
    """Every line once, in order, behind its worker's name; of equal reports one."""
    session = KeepingSession()
    with open_relay(client, session, PipesContext, None) as relay:
        futures = client.map(relay.wrap(_say), range(8), lines=2000, pure=False)
        assert client.gather(futures) == ["run"] * 8
    assert _by_task(session.logs()) == {task: list(range(2000)) for task in range(8)}
    methods = [one["method"] for one in session.messages()]
    assert methods.count("report_asset_materialization") == 1
    assert {text[:2] for text in session.logs()} == {"[0", "[1"}


def _die_once(path: str) -> None:
    pipes = PipesContext.get()
    first = not Path(path).exists()
    with Path(path).open("a") as file:
        file.write("x")
    for line in range(500):
        pipes.log.info("task %d line %d", 1 if first else 2, line)
    pipes.report_asset_materialization({"first": first}, asset_key="a")
    pipes.flush()
    if first:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_retried_by_dask(client: Any, tmp_path: Path) -> None:
    """What it flushed is there once; the report is the second attempt's."""
    session = KeepingSession()
    with open_relay(client, session, PipesContext, None) as relay:
        client.submit(relay.wrap(_die_once), str(tmp_path / "tries"), pure=False).result(60)
    assert _by_task(session.logs()) == {1: list(range(500)), 2: list(range(500))}
    reports = [one for one in session.messages() if one["method"].startswith("report")]
    assert [one["params"]["metadata"]["first"]["raw_value"] for one in reports] == [False]
    client.wait_for_workers(2)


def _until_refused(name: int) -> tuple[int, str]:
    import warnings

    from dagsterpipes import MessagesLostError, SessionClosedError

    warnings.simplefilter("ignore")
    pipes = PipesContext.get()
    accepted = 0
    try:
        while True:
            pipes.log.info("task %d line %d", name, accepted)
            accepted += 1
    except SessionClosedError:
        pass
    try:
        pipes.flush()
    except MessagesLostError as error:
        return accepted, Path(str(error.recovery_file)).read_text()
    except SessionClosedError:
        return accepted, ""
    raise AssertionError


def test_the_driver_closes_under_fire(client: Any) -> None:
    """What was accepted is with the driver or in the workers' files, exactly."""
    session = KeepingSession()
    relay = open_relay(client, session, PipesContext, None)
    from dagsterpipes import DagsterPipesError

    def task(name: int) -> Any:
        return _until_refused(name)

    def run(name: int) -> Any:
        found = []
        try:
            with relay.open():
                found.append(task(name))
        except DagsterPipesError:
            pass
        return found[0]

    futures = client.map(run, [1, 2], pure=False)
    time.sleep(1.5)
    relay.close()
    import json

    for name, (accepted, kept) in enumerate(client.gather(futures), 1):
        texts = session.logs() + [
            json.loads(line)["params"]["message"] for line in kept.splitlines()
        ]
        assert sorted(_by_task(texts)[name]) == list(range(accepted))
        assert accepted > 1000


def test_a_stalled_driver_bounds_the_mailbox(client: Any) -> None:
    """Callers wait, and everything is there in the end."""
    session = KeepingSession(buffer_size=1 << 18)
    with open_relay(client, session, PipesContext, None) as relay:
        session.flowing.clear()
        timer = threading.Timer(3, session.flowing.set)
        timer.start()
        client.gather(client.map(relay.wrap(_say), range(2), lines=120_000, pure=False))
    assert _by_task(session.logs()) == {task: list(range(120_000)) for task in range(2)}


def test_two_drivers_on_one_cluster(client: Any) -> None:
    """Each gets what its own tasks send."""
    sessions = KeepingSession(), KeepingSession()
    relays = [open_relay(client, session, PipesContext, None) for session in sessions]
    futures = [
        client.submit(relay.wrap(_say), number, 100, pure=False)
        for _ in range(3)
        for number, relay in enumerate(relays)
    ]
    client.gather(futures)
    for number, (relay, session) in enumerate(zip(relays, sessions, strict=True)):
        relay.close()
        assert {task: len(lines) for task, lines in _by_task(session.logs()).items()} == {
            number: 300
        }


def test_a_driver_that_is_gone(client: Any) -> None:
    """Its workers are told as soon as its client has left the cluster."""
    session = KeepingSession()
    other = distributed.Client(client.scheduler.address)
    relay = open_relay(other, session, PipesContext, None)
    other.close()

    def report() -> str:
        from dagsterpipes import DagsterPipesError

        try:
            with relay.open("w") as pipes:
                for _ in range(50):
                    pipes.log.info("nobody")
                    pipes.flush()
                    time.sleep(0.1)
        except DagsterPipesError as error:
            return str(error)
        return "it was taken"

    assert "the driver has closed the relay" in client.submit(report).result(60)
    with pytest.warns(match="mailbox could not be closed"):
        relay.close()
