"""The session: what a job calls, and its two lifecycles."""
