"""The job of each asset, by its first argument."""

import os
import sys
import time
from pathlib import Path

from dagsterpipes import decode_param, open_dagster_pipes

KIND = sys.argv[1]
COUNT = {"flood": 5_000, "bad": 3, "slow": 40}[KIND]
BAD = (b"Traceback (most recent call last):\n", b'{"method": "log", "params": {"mess\n', b"\xff\n")

with open_dagster_pipes() as pipes:
    for row in range(COUNT):
        pipes.log.info("loaded row %d of %d", row + 1, COUNT)
        if KIND == "bad":  # somebody else writes to the same file
            pipes.flush()
            messages = Path(decode_param(os.environ["DAGSTER_PIPES_MESSAGES"])["path"])
            with messages.open("ab") as file:
                file.write(BAD[row])
        if KIND == "slow":
            time.sleep(0.1)
    pipes.report_asset_materialization(metadata={"rows": COUNT})
