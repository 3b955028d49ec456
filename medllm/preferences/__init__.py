"""Preferences: a model's answers to past exams, labelled and paired as better and worse."""
