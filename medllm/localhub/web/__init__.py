"""What the hub answers over HTTP: one file for each concern, each with its routes."""
