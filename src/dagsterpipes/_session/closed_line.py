"""The line that ends a session, with the exception that ended the job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol import messages
from dagsterpipes._session.signals import Terminated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagsterpipes.typing import PipesException


def closed_line(
    exc: BaseException | PipesException | Mapping[str, Any] | None,
    signal: KeyboardInterrupt | None,
) -> bytes:
    """The ``closed`` message.

    Args:
        exc: What the caller closes with.
        signal: The signal that ended the job, if one did: where ``exc`` is only what became of it, the
            signal is reported.

    Raises:
        InvalidReportError: ``exc`` cannot be reported.
    """
    if exc is not None and not isinstance(exc, BaseException):
        return messages.closed(exc)
    if signal is not None and (isinstance(signal, Terminated) or _is_cancellation(exc)):
        # A new one, as the old one may be somewhere in the context of this one.
        reason = type(signal)(*signal.args)
        reason.__context__ = exc
        exc = reason
    if exc is None:
        return messages.closed(None)
    from dagsterpipes._protocol.exception_info import (  # noqa: PLC0415 because most sessions end well
        closing_exception,
        exception_payload,
    )

    reported = closing_exception(exc)
    return messages.closed(None if reported is None else exception_payload(reported))


def _is_cancellation(exc: BaseException | None) -> bool:
    """Whether it is what asyncio and trio make of a signal in the end."""
    return exc is not None and not isinstance(
        exc, (Exception, KeyboardInterrupt, SystemExit, GeneratorExit)
    )
