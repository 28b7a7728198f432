"""A relay over an actor, on a real cluster of Ray's."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

ray = pytest.importorskip("ray")

from dagsterpipes import PipesContext  # noqa: E402
from dagsterpipes._relay.relay import open_relay  # noqa: E402
from support.relaying import KeepingSession  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("default")


# Workers cannot import a test.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """One for all tests, as it takes half a minute to start under load, and may fail to."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_raylet_start_wait_time_s"] = "200"  # noqa: SIM112 because it is its name
    for attempt in range(3):
        try:
            ray.init(
                num_cpus=2,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                log_to_driver=False,
                object_store_memory=200 * 2**20,
            )
            break
        except Exception:
            ray.shutdown()
            if attempt == 2:
                raise
    yield
    ray.shutdown()


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


def test_tasks_report_through_the_driver() -> None:
    """Every line once, in order, behind its worker's name; of equal reports one."""
    session = KeepingSession()
    with open_relay("ray", session, PipesContext, None) as relay:
        say = ray.remote(relay.wrap(_say))
        assert ray.get([say.remote(task, 2000) for task in range(8)]) == ["run"] * 8
    assert _by_task(session.logs()) == {task: list(range(2000)) for task in range(8)}
    methods = [one["method"] for one in session.messages()]
    assert methods.count("report_asset_materialization") == 1
    assert all(text.startswith("[worker ") for text in session.logs())


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


def test_a_killed_worker_is_retried_by_ray(tmp_path: Path) -> None:
    """What it flushed is there once; the report is the second attempt's."""
    session = KeepingSession()
    with open_relay("ray", session, PipesContext, None) as relay:
        task = ray.remote(max_retries=2)(relay.wrap(_die_once))
        ray.get(task.remote(str(tmp_path / "tries")), timeout=60)
    assert _by_task(session.logs()) == {1: list(range(500)), 2: list(range(500))}
    reports = [one for one in session.messages() if one["method"].startswith("report")]
    assert [one["params"]["metadata"]["first"]["raw_value"] for one in reports] == [False]


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


def test_the_driver_closes_under_fire() -> None:
    """What was accepted is with the driver or in the workers' files, exactly."""
    session = KeepingSession()
    relay = open_relay("ray", session, PipesContext, None)
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

    futures = [ray.remote(run).remote(name) for name in (1, 2)]
    time.sleep(4)
    relay.close()
    import json

    for name, (accepted, kept) in enumerate(ray.get(futures), 1):
        texts = session.logs() + [
            json.loads(line)["params"]["message"] for line in kept.splitlines()
        ]
        assert sorted(_by_task(texts)[name]) == list(range(accepted))
        assert accepted > 1000


def test_a_stalled_driver_bounds_the_mailbox() -> None:
    """Callers wait, and everything is there in the end."""
    session = KeepingSession(buffer_size=1 << 18)
    with open_relay("ray", session, PipesContext, None) as relay:
        session.flowing.clear()
        threading.Timer(3, session.flowing.set).start()
        say = ray.remote(relay.wrap(_say))
        ray.get([say.remote(task, 120_000) for task in range(2)])
    assert _by_task(session.logs()) == {task: list(range(120_000)) for task in range(2)}


def test_an_actor_has_its_name() -> None:
    """Its methods open the relay themselves."""

    class Counter:
        def count(self, relay: Any) -> None:
            with relay.open() as pipes:
                pipes.log.info("counting")

    session = KeepingSession()
    with open_relay("ray", session, PipesContext, None) as relay:
        ray.get(ray.remote(Counter).options(name="counter").remote().count.remote(relay))
    assert session.logs() == ["[counter] counting"]
