"""Thresholds of the audit: lengths of grams and the least evidence that counts, for each kind of script."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the audit, chosen so that no YakugakuQA item is flagged and every planted one is."""

    length: int
    """Characters of a gram."""
    anchor: int
    """Characters of a run that finds a short item; a power of two."""
    near: int
    """Characters of the runs by which a short question is weighed."""
    loose: int = 4
    """Characters of the grams by which a changed item is weighed; only Japanese ones are."""
    pointers: int = 3
    """Rare runs of an item that must be close together before it is weighed for changes."""
    loose_review: float = 0.45
    """Weighed share from which a person reviews the match."""
    loose_question: float = 0.1
    """Least share of the question with it: its options alone are often a list of drugs."""
    loose_drop: float = 0.75
    """Weighed share from which a changed item is dropped."""
    options_review: float = 0.55
    """Weighed share from which a person must look at an item whose question has lost its own words, if of the"""
    options_frame: float = 0.25
    """question's grams, unweighed, this share is left: its stock phrases."""
    framed_review: float = 0.36
    """Least weighed share of an item that is seen by its options and the stock phrases of its question, if of the"""
    framed_question: float = 0.4
    """question's grams, unweighed, this share is left. It must show one of two things more. The first is"""
    framed_share: float = 0.38
    """this weighed share of the item,"""
    framed_options: float = 0.3
    """this weighed share of its options,"""
    framed_whole: int = 2
    """and this number of options word for word. The second is one option more and"""
    framed_words: float = 0.4
    """this weighed share of the question."""
    question_apart: int = 30
    """Grams a question must have to be judged without its options; shorter ones are stock phrases."""
    options_apart: int = 60
    """Grams that the options must have to be judged without their question; fewer are a list of names."""
    options_held: int = 3
    """Number of options that must be there, each at least by half."""
    least: int = 20
    """Grams that an item must have to be judged by them at all."""
    both: float = 0.2
    """Least containment of each when question and options are judged together."""
    short_question: float = 0.75
    """Least share of its question for a match of a short item."""
    short_options: float = 0.4
    """And so many of its options, word for word."""
    apart_question: float = 0.9
    """Least share of its question, nearly all, for a match of a short item whose options are far from it."""
    apart_options: float = 0.6
    """And so many of its options, word for word."""


JAPANESE = Thresholds(length=13, anchor=8, near=5)
ALPHABETIC = Thresholds(length=40, anchor=16, near=12)
