"""Which assets a step may report on, and what it has reported: the texts are the reference's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagsterpipes.exceptions import DagsterPipesError, InvalidReportError

if TYPE_CHECKING:
    from collections.abc import Sequence


class ReportScope:
    """The asset keys of a step, and what was reported for each.

    Dagster fails the step when an asset or a check is reported twice, and when the asset is not
    one of the step's. So neither gets that far.

    Threads: of two reports of the same thing at the same time, exactly one gets through.

    Args:
        asset_keys: The keys that may be reported; any may where there are none (steps of ops and
            of asset checks).
    """

    def __init__(self, asset_keys: Sequence[str] | None) -> None:
        self._asset_keys = asset_keys
        # What was reported, and by which call. dict.setdefault() decides who was first; it is
        # atomic, so no lock is needed.
        self._materializations: dict[str, object] = {}
        self._checks: dict[tuple[str, str], object] = {}

    def resolve(self, asset_key: str | None, method: str) -> str:
        """The asset key that a call is about.

        Args:
            asset_key: What the call was given; ``None`` or ``""`` stands for the only asset.
            method: The method that was called, for the error.

        Raises:
            InvalidReportError: The key is no str.
            DagsterPipesError: It is not one of the step's, or there is not exactly one to default to.
        """
        if asset_key is not None and not isinstance(asset_key, str):
            raise InvalidReportError(
                "has to be a str or None", method=method, parameter="asset_key", got=asset_key
            )
        key = str.__str__(asset_key) if asset_key is not None else ""
        if not self._asset_keys:
            if key:
                return key
            raise DagsterPipesError(
                f"Calling `{method}` without passing an asset key is undefined. Current step"
                " does not target a specific asset."
            )
        if not key:
            if len(self._asset_keys) != 1:
                raise DagsterPipesError(
                    f"Calling `{method}` without passing an asset key is undefined. Current step"
                    " targets multiple assets."
                )
            return self._asset_keys[0]
        if key not in self._asset_keys:
            raise DagsterPipesError(
                f"Invalid asset key. Expected one of `{self._asset_keys}`, got `{key}`."
            )
        return key

    def register_materialization(self, asset_key: str) -> None:
        """Note that an asset is materialized; to be called once the message is complete.

        Raises:
            DagsterPipesError: It was before.
        """
        call = object()
        if self._materializations.setdefault(asset_key, call) is not call:
            raise DagsterPipesError(
                f"Calling `report_asset_materialization` with asset key `{asset_key}` is undefined."
                " Asset has already been materialized, so no additional data can be reported"
                " for it."
            )

    def register_check(self, asset_key: str, check_name: str) -> None:
        """Note that a check is made; to be called once the message is complete.

        Raises:
            DagsterPipesError: It was before.
        """
        call = object()
        if self._checks.setdefault((asset_key, check_name), call) is not call:
            raise DagsterPipesError(
                f"Calling `report_asset_check` with asset key `{asset_key}` and check name"
                f" `{check_name}` is undefined. The check has already been reported, and Dagster"
                " takes one result for each."
            )
