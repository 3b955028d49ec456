"""Training: rows without loss of text, the two losses, and the watch kept over a run."""
