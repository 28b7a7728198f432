"""``python -m dagsterpipes`` is ``dagsterpipes``."""

from __future__ import annotations

import sys

from dagsterpipes.cli import main

if __name__ == "__main__":
    sys.exit(main())
