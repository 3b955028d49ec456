"""The inference engine for one base model and several adapters on this machine."""
