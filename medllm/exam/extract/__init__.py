"""Answer extraction: from a reply's text to its letters or its number, and the rule that found them."""
