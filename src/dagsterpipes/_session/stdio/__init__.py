"""Capture of what the process and its children write to stdout and stderr.

``text`` is pure: bytes to pieces of text. ``descriptors`` holds the system calls, ``taps`` the
places where text is taken off, ``reader`` the thread, and ``capture`` ties them together.
"""

from dagsterpipes._session.stdio.capture import StdioCapture, real_stderr

__all__ = ["StdioCapture", "real_stderr"]
