"""Batches get the memory of the ones before: none is fetched from the system again and again."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import pytest

from support.interactive_job import INTERACTIVE
from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

if platform.libc_ver()[0] != "glibc":
    pytest.skip("other C libraries give memory back as they like", allow_module_level=True)

JOB = """
import resource
from dagsterpipes import open_dagster_pipes

def say_much(count):
    for number in range(count):
        pipes.log.info("processed row %d of the input table", number)
    pipes.flush()

with open_dagster_pipes(flush_interval=5) as pipes:
    for _ in range(5):
        say_much(9_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for step in range(20):
        say_much(4_000 + 250 * step)
    tell(faults=resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_batches_reuse_their_memory(tmp_path: Path) -> None:
    """20 growing batches: 0 to 120 pages, and 750 to 1,600 if the C library gives them back."""
    done = Launch(tmp_path).run(INTERACTIVE + JOB)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["faults"] < 400
