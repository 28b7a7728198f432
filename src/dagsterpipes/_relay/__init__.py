"""Workers on other machines report through the session of the process that Dagster launched."""
