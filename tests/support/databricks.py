"""Databricks' REST API over a folder, below the classes of the real SDK, and the folder as jobs see it."""

from __future__ import annotations

import base64
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def _check(target: Path) -> None:
    from databricks.sdk.errors import NotFound

    if not target.exists():
        raise NotFound(f"{target} does not exist")
