"""Cleaning: one spelling, quality filters, and personal data of patients."""
