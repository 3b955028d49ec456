"""Evaluation: the prompts of each exam, rendered plainly and with explanation, and the rows of its report."""
