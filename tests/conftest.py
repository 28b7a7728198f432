"""What all tests need of pytest."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator


# Tests count log lines as messages, also in floods; those of the default unset it.
os.environ["DAGSTERPIPES_COALESCE_LOGS"] = "0"

_HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


@pytest.fixture(autouse=True)
def _own_signal_handlers() -> None:
    """Begin with the signal handlers of a new process: Dagster, run in this one, sets its own."""
    for number, handler in _HANDLERS.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


# What all tests together may take, in seconds; CI has a limit of its own.
LONGEST_RUN = 15 * 60
_BEGAN = time.monotonic()
_is_worker = False


def pytest_configure(config: pytest.Config) -> None:
    """Know whether this process shows what the tests do."""
    global _is_worker
    _is_worker = hasattr(config, "workerinput")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure at once, not when all tests are done; and end a run that takes too long."""
    if _is_worker:
        return
    if report.failed:
        cause = str(report.longrepr).strip().splitlines() or [""]
        print(f"\nFAILED {report.nodeid} ({report.when}): {cause[-1]}", flush=True)
    if time.monotonic() - _BEGAN > LONGEST_RUN and "CI" not in os.environ:
        pytest.exit(f"the tests took longer than {LONGEST_RUN // 60} minutes", returncode=1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let failures of tests about surrogates be reported: pytest-xdist sends reports as UTF-8."""
    report = yield
    if report.longrepr is not None and not _is_utf8(str(report.longrepr)):
        report.longrepr = _as_utf8(str(report.longrepr))
    report.sections = [(name, _as_utf8(text)) for name, text in report.sections]
    return report


def _is_utf8(text: str) -> bool:
    return text == _as_utf8(text)


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
