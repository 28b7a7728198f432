"""A relay over TCP from Spark's executors, which are processes of Python beside a Java one."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

pyspark_sql = pytest.importorskip("pyspark.sql")

from dagsterpipes import PipesContext  # noqa: E402
from dagsterpipes._relay.relay import open_relay  # noqa: E402
from support.relaying import KeepingSession  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(shutil.which("java") is None, reason="needs Java"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        builder = pyspark_sql.SparkSession.builder.master("local[2]")
        session = (
            builder.config("spark.driver.host", "127.0.0.1")
            .config("spark.ui.enabled", "false")
            .getOrCreate()
        )
        yield session
        session.stop()


def test_partitions_report_through_the_driver(spark: Any) -> None:
    """Every line once, in the order of its partition."""
    session = KeepingSession()
    with open_relay("tcp://", session, PipesContext, None) as relay:

        def count(part: Any) -> Any:
            with relay.open("w") as pipes:
                rows = list(part)
                for row in rows:
                    pipes.log.info("row %d", row)
                return [len(rows)]

        rows = spark.sparkContext.parallelize(range(4000), 4).mapPartitions(count)
        assert rows.collect() == [1000] * 4
    found = [int(text.removeprefix("[w] row ")) for text in session.logs()]
    for part in range(4):
        expected = list(range(part * 1000, part * 1000 + 1000))
        assert [row for row in found if row in set(expected)] == expected
