"""The Dagster side: two assets, each of which is a process of its own.

`dagster dev -f examples/demo/defs.py` shows them in Dagster's web page.
"""

import json
import sys
from pathlib import Path

import dagster as dg

HERE = Path(__file__).parent


@dg.asset(
    check_specs=[
        dg.AssetCheckSpec("has_orders", asset="orders"),
        dg.AssetCheckSpec("no_small_orders", asset="orders"),
    ]
)
def orders(
    context: dg.AssetExecutionContext, pipes_client: dg.PipesSubprocessClient
) -> dg.MaterializeResult:
    """Orders of all regions, fetched by an asyncio job."""
    completed = pipes_client.run(
        command=[sys.executable, str(HERE / "ingest.py")],
        context=context,
        extras={"minimum_amount": 10},
    )
    for message in completed.get_custom_messages():
        context.log.info("custom message: %s", json.dumps(message, sort_keys=True))
    return completed.get_materialize_result()


@dg.asset
def exported_orders(
    context: dg.AssetExecutionContext, pipes_client: dg.PipesSubprocessClient
) -> dg.MaterializeResult:
    """The export, which fails: two tasks of its task group raise."""
    return pipes_client.run(
        command=[sys.executable, str(HERE / "export.py")], context=context
    ).get_materialize_result()


defs = dg.Definitions(
    assets=[orders, exported_orders],
    resources={"pipes_client": dg.PipesSubprocessClient()},
)
