"""Stability under explanation: paired changes between plain and explained answers of one model."""
