"""The same log lines in Postgres: `make test-postgres`, which has the driver and a server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from dagsterpipes.dagster import PipesTempFileMessageReader, private
from support.dagster_side import RAW, instance, materialize, script
from support.durable_runs import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("dagster_postgres", reason="run by `make test-postgres`")
pytestmark = pytest.mark.filterwarnings("ignore:::dagster")

COUNT = 3_000
JOB = (
    RAW
    + f"""
send("opened", extras={{}})
file.write(b"".join(line("log", message=f"row {{i}} \\0 ü", level="INFO") for i in range({COUNT})))
materialize(rows={COUNT})
log("after the report")
send("closed")
"""
)
EXPECTED = [*[f"row {i} \0 ü" for i in range(COUNT)], "after the report"]


def as_postgres(*command: str) -> list[str]:
    """Servers refuse to run as root; Debian's package makes a user for them."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else list(command)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a server of our own, on the loopback, without durability."""
    found = shutil.which("initdb") or next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None)
    if found is None:
        pytest.fail("no initdb here; Debian: apt-get install postgresql")
    programs = Path(found).parent
    folder = Path(tempfile.mkdtemp(prefix="dagsterpipes-postgres-"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data = folder / "data"
        subprocess.run(
            as_postgres(str(programs / "initdb"), "-A", "trust", "-U", "postgres", str(data)),
            check=True,
            capture_output=True,
            cwd=folder,
        )
        options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-k", str(folder)]
        with subprocess.Popen(
            as_postgres(str(programs / "postgres"), "-D", str(data), "-p", str(port), *options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        ) as process:
            ready = as_postgres(str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port))
            for _ in range(200):
                if not subprocess.run(
                    ready, check=False, capture_output=True, cwd=folder
                ).returncode:
                    break
                time.sleep(0.05)
            try:
                yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres"
            finally:
                stop = [str(programs / "pg_ctl"), "stop", "-m", "immediate", "-D", str(data)]
                subprocess.run(as_postgres(*stop), check=True, capture_output=True, cwd=folder)
                process.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def opened(server: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose storage is that server."""
    yaml = f"storage:\n  postgres:\n    postgres_url: {server}\n"
    with instance(tmp_path / "home", yaml) as one:
        yield one


def read_with(command: list[str], reader: Any, took: list[float]) -> Any:
    def body(context: Any) -> Any:
        start = time.monotonic()
        client = dg.PipesSubprocessClient(message_reader=reader)
        results = client.run(context=context, command=command).get_results()
        took.append(time.monotonic() - start)
        return results

    return body


def test_every_line_is_an_entry_of_its_own(
    opened: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, in few transactions, many times faster than with Dagster's reader."""
    sizes: list[int] = []
    insert = private.EventTable.insert

    def counted(table: Any, connection: Any, rows: Any) -> None:
        sizes.append(len(rows))
        insert(table, connection, rows)

    monkeypatch.setattr(private.EventTable, "insert", counted)
    took: list[float] = []
    command = script(tmp_path, JOB)
    for reader in (PipesTempFileMessageReader(), dg.PipesTempFileMessageReader()):
        run = materialize(opened, read_with(command, reader, took))
        assert run.success
        assert [text for _, text in run.user_logs()] == EXPECTED
        assert run.materialization().metadata["rows"].value == COUNT
    assert sum(sizes) == len(EXPECTED)
    assert len(sizes) < 20
    assert took[1] > 8 * took[0], took


@pytest.mark.parametrize("how", ["in the middle", "after the commit"])
def test_a_failing_transaction_stores_every_line_once(
    how: str, opened: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres commits each statement unless asked not to: a batch is one transaction all the same."""
    import contextlib

    insert, transaction = private.EventTable.insert, private.EventTable.transaction
    failures: list[str] = []

    def failing_insert(table: Any, connection: Any, rows: Any) -> None:
        insert(table, connection, rows)
        if how == "in the middle":
            failures.append(how)
            raise OSError("connection reset")

    @contextlib.contextmanager
    def failing_transaction(table: Any, run_id: str) -> Iterator[Any]:
        with transaction(table, run_id) as connection:
            yield connection
        if how == "after the commit" and not failures:
            failures.append(how)
            raise OSError("connection reset")

    monkeypatch.setattr(private.EventTable, "insert", failing_insert)
    monkeypatch.setattr(private.EventTable, "transaction", failing_transaction)
    command = script(tmp_path, JOB.replace(str(COUNT), "60"))
    run = materialize(opened, read_with(command, PipesTempFileMessageReader(), []))
    assert failures
    assert [text for _, text in run.user_logs()] == [*EXPECTED[:60], "after the report"]


def test_a_durable_job_is_stored_once(server: str, tmp_path: Path) -> None:
    """Its lines and how far they were read are one transaction here, too."""
    storage = f"storage:\n  postgres:\n    postgres_url: {server}\n"
    home = tmp_path / "home"
    with instance(home, storage):
        pass
    with Workers(tmp_path, home, pause=0.2, storage=storage) as workers:
        (tmp_path / "hold").touch()
        workers.start()
        for rows in (60, 180):
            workers.wait_for_stored(rows)
            workers.kill()
            workers.start()
        (tmp_path / "hold").unlink()
        assert workers.wait() == 0
        assert workers.rows() == workers.expected()
        assert len(workers.starts()) == 1
