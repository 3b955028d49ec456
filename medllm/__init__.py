"""Make a language model good at a medical exam, keep it good when it explains itself, and measure both."""

__version__ = "0.1.0"
