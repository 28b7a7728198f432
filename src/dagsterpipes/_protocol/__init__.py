"""The wire: values in, values or bytes out. No clock, no environment, no threads."""
