"""Databricks' REST API over a folder, for the classes of the real SDK: files, and jobs that run here."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from support.cluster import cluster_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ_SIZE = 524_288
"""Bytes that a read of DBFS gives unless asked for less."""


class FakeApi:
    """The calls that Dagster makes, as documented by Databricks."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def do(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        data: Any = None,
        **_: Any,
    ) -> Any:
        """Answer a request."""
        if path.startswith("/api/2.0/dbfs/"):
            return self._dbfs(
                path.removeprefix("/api/2.0/dbfs/"), {**(query or {}), **(body or {})}
            )
        kind, separator, rest = path.removeprefix("/api/2.0/fs/").partition("/")
        target = self.root / rest
        if kind == "directories":
            return self._folder(method, target)
        assert kind == "files" and separator, path
        return self._file(method, target, data)

    def _dbfs(self, call: str, params: dict[str, Any]) -> Any:
        target = self.root / params["path"].removeprefix("dbfs:").lstrip("/")
        if call == "mkdirs":
            target.mkdir(parents=True, exist_ok=True)
        elif call == "delete":
            shutil.rmtree(target, ignore_errors=True)
        elif call == "put":
            target.write_bytes(base64.b64decode(params["contents"]))
        elif call == "get-status":
            _check(target)
            return {"path": params["path"], "is_dir": target.is_dir(), "file_size": 0}
        else:
            assert call == "read", call
            _check(target)
            start = params.get("offset", 0)
            part = target.read_bytes()[
                start : start + min(READ_SIZE, params.get("length", READ_SIZE))
            ]
            return {"bytes_read": len(part), "data": base64.b64encode(part).decode()}
        return {}

    def _folder(self, method: str, target: Path) -> Any:
        if method == "PUT":
            target.mkdir(parents=True, exist_ok=True)
        elif method == "DELETE":
            target.rmdir()
        else:
            _check(target)
            return {
                "contents": [
                    {
                        "name": one.name,
                        "path": f"/{one.relative_to(self.root)}",
                        "is_directory": one.is_dir(),
                    }
                    for one in target.iterdir()
                ]
            }
        return {}

    def _file(self, method: str, target: Path, data: Any) -> Any:
        if method == "PUT":
            target.write_bytes(data.read())
        elif method == "DELETE":
            target.unlink()
        else:
            _check(target)
            return {
                "contents": target.open("rb"),
                "content-length": str(target.stat().st_size),
                "content-type": "application/octet-stream",
                "last-modified": "Sat, 28 Nov 2026 00:00:00 GMT",
            }
        return {}


class Workspace:
    """What Dagster uses of a `WorkspaceClient`."""

    def __init__(self, root: Path) -> None:
        self.api_client = FakeApi(root)


class Cluster:
    """Runs jobs as processes of this machine, whose mounts are the folder.

    Args:
        root: The folder.
        folder: For what the processes import.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._environment = cluster_environment(folder, root)
        self._runs: list[subprocess.Popen[bytes]] = []

    def do(self, call: str, params: dict[str, Any]) -> Any:
        """Answer a request about jobs."""
        if call == "submit":
            [task] = params["tasks"]
            work = task["spark_python_task"]
            name = work["python_file"].rpartition("/")[2]
            env = {name: value for name, value in os.environ.items() if "DAGSTER" not in name}
            env |= self._environment | task.get("new_cluster", {}).get("spark_env_vars", {})
            command = [sys.executable, str(self._root / name), *work.get("parameters", [])]
            self._runs.append(subprocess.Popen(command, env=env))
            return {"run_id": len(self._runs)}
        assert call == "get", call
        code = self._runs[int(params["run_id"]) - 1].poll()
        if code is None:
            return {"state": {"life_cycle_state": "RUNNING"}}
        result = "FAILED" if code else "SUCCESS"
        return {"state": {"life_cycle_state": "TERMINATED", "result_state": result}}

    def close(self) -> None:
        """End what still runs."""
        for run in self._runs:
            run.kill()
            run.wait()


@contextmanager
def served_workspace(root: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Serve the API on loopback; give what a `WorkspaceClient` needs in its environment.

    Args:
        root: What DBFS and the volumes have, and the scripts of jobs, by their names.
        folder: For what the processes of jobs import.
    """
    api, cluster = FakeApi(root), Cluster(root, folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            path, query = unquote(url.path), dict(parse_qsl(url.query))
            is_json = body.startswith(b"{") and "/fs/files/" not in path
            params: dict[str, Any] = {name: _number(value) for name, value in query.items()}
            params |= json.loads(body) if is_json else {}
            try:
                if "/jobs/runs/" in path:
                    answer = cluster.do(path.rpartition("/")[2], params)
                else:
                    answer = api.do(self.command, path, params, data=io.BytesIO(body))
            except Exception as error:
                is_there = type(error).__name__ != "NotFound"
                self._answer(
                    HTTPStatus.INTERNAL_SERVER_ERROR if is_there else HTTPStatus.NOT_FOUND,
                    {"error_code": type(error).__name__, "message": str(error)},
                )
            else:
                self._answer(HTTPStatus.OK, answer)

        def _answer(self, status: int, answer: dict[str, Any]) -> None:
            contents = answer.pop("contents", None) if "content-length" in answer else None
            data = contents.read() if contents else json.dumps(answer).encode()
            self.send_response_only(status)
            for name, value in (answer if contents else {}).items():
                self.send_header(name, value)
            if not contents:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield {
            "DATABRICKS_HOST": f"http://127.0.0.1:{server.server_address[1]}",
            "DATABRICKS_TOKEN": "test",
        }
    finally:
        server.shutdown()
        server.server_close()
        cluster.close()


def _number(value: str) -> int | str:
    return int(value) if value.isdigit() else value


def _check(target: Path) -> None:
    from databricks.sdk.errors import NotFound

    if not target.exists():
        raise NotFound(f"{target} does not exist")
