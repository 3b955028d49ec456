"""Blind review: pairs of replies, votes on them, and the addresses and HTML that the browser uses."""
