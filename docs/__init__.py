"""The scripts that keep documents in step with the code."""
