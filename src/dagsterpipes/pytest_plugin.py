"""The fixture ``pipes_launch`` for tests of jobs; pytest finds it by the package's entry point."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagsterpipes.testing import Reported


@pytest.fixture
def pipes_launch() -> Iterator[Callable[..., Reported]]:
    """Simulate a launch by Dagster, for sync and async tests.

    ``reported = pipes_launch(asset_keys=["a"], extras={"x": 1})``: the arguments are those of
    `dagsterpipes.testing.launched`. From that call to the end of the test, `open_dagster_pipes`
    opens sessions whose messages stay in memory; ``reported`` has them.
    """
    from dagsterpipes.testing import launched  # noqa: PLC0415 because most test runs do not use it

    with ExitStack() as stack:

        def launch(**facts: Any) -> Reported:
            stack.close()
            return stack.enter_context(launched(**facts))

        yield launch
