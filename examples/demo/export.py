"""A job that fails: two of its three tasks raise, and Dagster shows both tracebacks."""

from __future__ import annotations

import asyncio
import sys

from dagsterpipes import PipesContext, open_dagster_pipes


async def upload(region: str, pipes: PipesContext) -> None:
    """Upload one region's orders; two regions refuse."""
    pipes.log.info("uploading %s", region)
    await asyncio.sleep(0)  # lets the other uploads begin
    if region == "north":
        raise PermissionError("the bucket of north is read-only")
    if region == "south":
        raise ConnectionResetError("south closed the connection after 3 of 4 parts")


if sys.version_info >= (3, 11):

    async def upload_all(regions: list[str], pipes: PipesContext) -> None:
        """Upload every region in one task group."""
        async with asyncio.TaskGroup() as tasks:
            for region in regions:
                tasks.create_task(upload(region, pipes))

else:
    from anyio import create_task_group

    async def upload_all(regions: list[str], pipes: PipesContext) -> None:
        """Upload every region in one task group."""
        async with create_task_group() as tasks:
            for region in regions:
                tasks.start_soon(upload, region, pipes)


async def main() -> None:
    """Upload what `ingest.py` fetched."""
    async with open_dagster_pipes() as pipes:
        await upload_all(["north", "south", "west"], pipes)


if __name__ == "__main__":
    asyncio.run(main())
