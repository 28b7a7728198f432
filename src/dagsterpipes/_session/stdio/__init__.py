"""Capture of what the process and its children write to stdout and stderr.

``taps`` are the places where text is taken off, ``copier`` is the process that reads it, and ``capture``
ties them together. The copier imports this package: nothing is imported here.
"""
