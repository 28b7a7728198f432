"""Dagster Pipes for async and log-heavy Python jobs."""
