"""What Dagster's message reader does with a line, and with a whole session."""
