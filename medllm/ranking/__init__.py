"""Ranking: a model's answers to past exams, labelled, and paired as ground truth above right above wrong."""
