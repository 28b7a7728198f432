"""From a report to its line: checked, encoded and accepted in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagsterpipes._delivery.outbox import LogLine
from dagsterpipes._protocol import messages
from dagsterpipes._protocol.assets import ReportScope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dagsterpipes._session.session import Session


class Reports:
    """What a session was told to report; each method is documented at `PipesContext`.

    Args:
        session: Takes the lines.
        asset_keys: The assets that may be reported on, see `ReportScope`.
    """

    def __init__(self, session: Session, asset_keys: Sequence[str] | None) -> None:
        self._session = session
        self._scope = ReportScope(asset_keys)

    def asset_materialization(
        self, metadata: Mapping[str, Any] | None, data_version: str | None, asset_key: str | None
    ) -> None:
        """Check, encode and accept."""
        method = "report_asset_materialization"
        self._session.check_open(method)
        key = self._scope.resolve(asset_key, method)
        line = messages.asset_materialization(
            asset_key=key, data_version=data_version, metadata=metadata
        )
        self._scope.register_materialization(key)
        self._session.put(method, line)

    def asset_check(
        self,
        check_name: str,
        passed: bool,
        severity: str,
        metadata: Mapping[str, Any] | None,
        asset_key: str | None,
    ) -> None:
        """Check, encode and accept."""
        method = "report_asset_check"
        self._session.check_open(method)
        key = self._scope.resolve(asset_key, method)
        line = messages.asset_check(
            asset_key=key,
            check_name=check_name,
            passed=passed,
            severity=severity,
            metadata=metadata,
        )
        self._scope.register_check(key, check_name)
        self._session.put(method, line)

    def custom_message(self, payload: Any) -> None:
        """Check, encode and accept."""
        self._session.put("report_custom_message", messages.custom_message(payload))

    def external_stream(self, stream: str, text: str, extras: Mapping[str, Any] | None) -> None:
        """Check, encode and accept."""
        line = LogLine(messages.external_stream(stream, text, extras))
        self._session.put("log_external_stream", line, urgent=False)
