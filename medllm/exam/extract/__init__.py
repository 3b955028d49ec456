"""Answer extraction: a reply's text to the letters or the number that it answers, and the rule that found it."""
