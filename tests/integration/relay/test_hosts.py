"""A relay between hosts: two network namespaces with a cable between them; and joblib's workers."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import joblib
import pytest

from dagsterpipes import PipesContext
from dagsterpipes._relay.relay import open_relay
from support.launching import Launch
from support.relaying import KeepingSession

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """The names of two namespaces, 10.77.0.1 and 10.77.0.2."""
    names = f"dp{os.getpid()}a", f"dp{os.getpid()}b"
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip(
            "link",
            "add",
            names[0],
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            names[1],
            "netns",
            names[1],
        )
        for number, name in enumerate(names, 1):
            _ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", name)
            _ip("-n", name, "link", "set", name, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        yield names
    finally:
        for name in names:
            _ip("netns", "del", name)


DRIVER = """
import pickle, sys
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes() as pipes, pipes.relay("tcp://10.77.0.1") as relay:
    print(pickle.dumps(relay).hex(), flush=True)
    sys.stdin.readline()
"""
WORKER = """
import pickle, sys
with pickle.loads(bytes.fromhex(sys.argv[1])).open("other host") as pipes:
    for number in range(5000):
        pipes.log.info("line %d", number)
    pipes.report_asset_materialization({"rows": 5000})
"""


def test_a_worker_on_another_host(tmp_path: Path, hosts: tuple[str, str]) -> None:
    """It reaches the driver by the address that was given, and by no other."""
    launch = Launch(tmp_path)
    with subprocess.Popen(
        ["ip", "netns", "exec", hosts[0], sys.executable, "-c", DRIVER],
        env={**os.environ, **launch.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        relay = driver.stdout.readline().strip()
        assert pickle.loads(bytes.fromhex(relay))._invitation.address.host == "10.77.0.1"
        subprocess.run(
            ["ip", "netns", "exec", hosts[1], sys.executable, "-c", WORKER, relay],
            check=True,
            timeout=60,
        )
        driver.communicate("\n", timeout=60)
    assert launch.logs() == [f"[other host] line {number}" for number in range(5000)]
    assert [method for method, _ in launch.sent()][-2:] == [
        "report_asset_materialization",
        "closed",
    ]


@pytest.mark.filterwarnings("default")
def test_joblib() -> None:
    """Loky's processes, which know nothing of the driver but what was pickled."""

    def task(number: int) -> int:
        PipesContext.get().log.info("task %d", number)
        return number * number

    session = KeepingSession()
    with open_relay("tcp://", session, PipesContext, None) as relay:
        wrapped = relay.wrap(task, "w")
        with joblib.parallel_config("loky", n_jobs=2):
            squares = joblib.Parallel()(joblib.delayed(wrapped)(number) for number in range(20))
    assert squares == [number * number for number in range(20)]
    assert sorted(session.logs()) == sorted(f"[w] task {number}" for number in range(20))
