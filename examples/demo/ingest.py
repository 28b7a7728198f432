"""The job: an asyncio program that Dagster launches. It also runs on its own: `python ingest.py`."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from statistics import fmean

from dagsterpipes import MetadataValue, PipesContext, open_dagster_pipes

REGIONS = {"north": [120, 80, 35], "south": [15, 240], "west": [60, 60, -5]}


async def fetch(region: str, pipes: PipesContext) -> list[int]:
    """Stand in for a request: one region's orders, a moment later."""
    pipes.log.info("fetching the orders of %s", region)
    await asyncio.sleep(0.05)
    amounts = REGIONS[region]
    pipes.log.debug("%s sent %d orders", region, len(amounts))
    return amounts


async def main() -> None:
    """Fetch all regions at once, report what came."""
    started = datetime.now(timezone.utc)
    async with open_dagster_pipes() as pipes:
        minimum = pipes.get_extra("minimum_amount", 0)
        fetched = await asyncio.gather(*(fetch(region, pipes) for region in REGIONS))
        amounts = dict(zip(REGIONS, fetched, strict=True))

        everything = [amount for values in amounts.values() for amount in values]
        too_small = [amount for amount in everything if amount < minimum]
        if too_small:
            count = f"{len(too_small)} of {len(everything)} orders"
            pipes.log.warning("%s is below %d", count, minimum)

        rows = [
            {"region": region, "orders": len(values), "total": sum(values)}
            for region, values in amounts.items()
        ]
        pipes.report_asset_materialization(
            metadata={
                "orders": len(everything),
                "mean_amount": fmean(everything),
                "summary": MetadataValue.md(
                    "**All regions answered.**\n\n- fetched together\n- none retried"
                ),
                "by_region": MetadataValue.table(rows),
                "source": MetadataValue.url("https://example.com/orders"),
                "started": started,
                "settings": {"minimum_amount": minimum},
            },
            data_version="2026-01",
        )
        pipes.report_asset_check("has_orders", passed=bool(rows), metadata={"regions": len(rows)})
        pipes.report_asset_check(
            "no_small_orders",
            passed=not too_small,
            severity="WARN",
            metadata={"too_small": too_small},
        )
        pipes.report_custom_message({"regions": sorted(amounts), "seconds": 0.05})


if __name__ == "__main__":
    asyncio.run(main())
