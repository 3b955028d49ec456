"""Weights: a base in float or NF4, adapters on one copy of it, and the merge that makes them one model."""
