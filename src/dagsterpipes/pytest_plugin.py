"""The fixture ``pipes_launch`` for tests of jobs; pytest finds it by the package's entry point."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Unpack

    from dagsterpipes.testing import LaunchOptions, PipesLaunch, Reported


@pytest.fixture
def pipes_launch() -> Iterator[PipesLaunch]:
    """Simulate a launch by Dagster, for sync and async tests.

    ``reported = pipes_launch(asset_keys="a", extras={"x": 1})``: the arguments are those of
    `dagsterpipes.testing.launched`. From that call to the end of the test, `open_dagster_pipes`
    opens sessions whose messages ``reported`` has. Its type is `dagsterpipes.testing.PipesLaunch`.
    """
    from dagsterpipes.testing import launched  # noqa: PLC0415 because most test runs do not use it

    with ExitStack() as stack:

        def launch(**facts: Unpack[LaunchOptions]) -> Reported:
            stack.close()
            return stack.enter_context(launched(**facts))

        yield launch
