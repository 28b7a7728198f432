"""Launched scripts that exchange facts with the test over their standard streams."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from support.launching import Launch

INTERACTIVE = """
import json, sys

def tell(**facts):
    print(json.dumps(facts), flush=True)

def wait_for_resume():
    return sys.stdin.readline()
"""


class Job:
    """A launched script that can `tell` facts, and wait until it is allowed to `resume`.

    Args:
        launch: Where.
        script: What.
        args: Of the script.
        options: Of `Launch.start`.
    """

    def __init__(self, launch: Launch, script: str, *args: str, **options: Any) -> None:
        self.process = launch.start(INTERACTIVE + script, *args, stdin=subprocess.PIPE, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        with self.process:  # closes the pipes
            pass

    def listen(self) -> dict[str, Any]:
        """The next thing that it tells."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.end())
        facts: dict[str, Any] = json.loads(line)
        return facts

    def resume(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self, timeout: float = 30) -> tuple[int, str]:
        """Its status and what it wrote to stderr."""
        _, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, err
