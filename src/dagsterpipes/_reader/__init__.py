"""What is known on the other side without Dagster: lines, sessions, and the folders of durable jobs."""
