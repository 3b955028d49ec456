"""Exams: questions, prompts, answer extraction, scores, and stability under explanation."""
