"""Getting lines to where they belong. Knows bytes and nothing of Dagster."""
