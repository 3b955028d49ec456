"""Experts' votes between two hidden explanations: kept before thanks are said, then sent to the Hub exactly once."""
