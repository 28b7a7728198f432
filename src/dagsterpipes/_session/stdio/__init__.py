"""Capture of what the process and its children write to stdout and stderr.

``taps`` are the places where text is taken off, ``reader`` is the thread that reads it, and ``capture``
ties them together.
"""

from dagsterpipes._session.stdio.capture import StdioCapture

__all__ = ["StdioCapture"]
