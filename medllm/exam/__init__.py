"""Exams: questions, prompts, the reading of answers, scores, and stability under explanation."""
