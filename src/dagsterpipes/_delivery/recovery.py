"""The last resort: lines that could not be delivered are kept in a file."""

from __future__ import annotations

import os

PREFIX = "dagsterpipes-recovery-"


def keep(lines: bytes) -> str | None:
    """Write the lines to a new file that only this user can read; return its path.

    Tries the system's folder for temporary files, then the current folder. Returns None when
    neither takes all of the lines.
    """
    import tempfile  # noqa: PLC0415 because it is slow to import and almost never needed

    for find_folder in (tempfile.gettempdir, os.getcwd):
        try:
            descriptor, path = tempfile.mkstemp(
                prefix=f"{PREFIX}{os.getpid()}-", suffix=".jsonl", dir=find_folder()
            )
        except OSError:  # gettempdir() raises it too, when it finds no folder with space
            continue
        try:
            with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 because it is a descriptor
                rest = memoryview(lines)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(descriptor)
        except OSError:
            os.unlink(path)  # noqa: PTH108 because pathlib is not needed for this
            continue
        return os.path.abspath(path)  # noqa: PTH100 because pathlib is not needed for this
    return None
