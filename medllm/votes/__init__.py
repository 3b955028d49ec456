"""Experts' votes between two hidden explanations: stored before acknowledgement, then sent to the Hub exactly once."""
