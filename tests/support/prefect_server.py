"""A Prefect server on loopback."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from support.stores import free_port, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """Run the server; give what its clients need in their environment.

    Args:
        home: Where the server and its clients keep their files.
    """
    port = free_port()
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.2",
        "DO_NOT_TRACK": "1",
    }
    arguments = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
    command = (sys.executable, "-m", "prefect", *arguments)
    with served(*command, port=port, env={**os.environ, **env}):
        yield env
