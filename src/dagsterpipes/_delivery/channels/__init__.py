"""Channels: the only code that knows where lines go."""
