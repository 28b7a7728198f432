"""How many lines a reader can take."""

from __future__ import annotations

__all__ = ["LineBudget"]


class LineBudget:
    """Lets so many lines pass in each second, and counts the others.

    Args:
        rate: Lines a second; 0 lets everything pass.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._second = float("-inf")  # when the present second began
        self._passed = 0  # in this second
        self._skipped = 0  # since they were last asked for

    def take(self, now: float) -> bool:
        """Whether one more line may pass; it is counted as skipped when not.

        Args:
            now: The time, in seconds.
        """
        if now - self._second >= 1:
            self._second, self._passed = now, 0
        if self._rate and self._passed >= self._rate:
            self._skipped += 1
            return False
        self._passed += 1
        return True

    def take_skipped(self) -> int:
        """How many lines were skipped since the last call."""
        skipped, self._skipped = self._skipped, 0
        return skipped
