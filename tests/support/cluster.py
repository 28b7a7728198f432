"""What a cluster adds to a job's process: the mounts of Databricks, and as much of Spark as the jobs use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = """
import builtins, os

def there(path):
    if not isinstance(path, str) or not path.startswith(("/dbfs/", "/Volumes/")):
        return path
    return os.environ["CLUSTER_ROOT"] + path.removeprefix("/dbfs")

def mount(module, name):
    call = getattr(module, name)
    setattr(module, name, lambda *args, **options: call(*map(there, args), **options))

mount(builtins, "open")
for name in ("link", "replace", "unlink"):
    mount(os, name)
"""

SPARK = """
class Conf:
    def get(self, key):
        return {"clusterId": "c1", "clusterLogDestination": "dbfs:/logs"}.get(
            key.removeprefix("spark.databricks.clusterUsageTags."), True
        )

class Frame:
    def __init__(self, rows, names):
        self.columns = dict(zip(names, zip(*rows)))

    def agg(self, wanted):
        [(name, function)] = wanted.items()
        assert function == "avg"
        values = self.columns[name]
        return Frame([(sum(values) / len(values),)], [name])

    def collect(self):
        return list(zip(*self.columns.values()))

class SparkSession:
    conf = Conf()

    def appName(self, name):
        return self

    def getOrCreate(self):
        return self

    def createDataFrame(self, rows, names):
        return Frame(rows, names)

    def stop(self):
        pass

    @classmethod
    def getActiveSession(cls):
        return cls.builder

SparkSession.builder = SparkSession()
"""


def cluster_environment(folder: Path, root: Path) -> dict[str, str]:
    """The environment of a process on the cluster.

    Args:
        folder: For what the process imports.
        root: Where its ``/dbfs`` and ``/Volumes`` are.
    """
    for name, content in {
        "sitecustomize.py": MOUNTS,
        "pyspark/__init__.py": "",
        "pyspark/sql.py": SPARK,
        "py4j/__init__.py": "",
        "py4j/protocol.py": "class Py4JJavaError(Exception): pass",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return {
        "CLUSTER_ROOT": str(root),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
    }
