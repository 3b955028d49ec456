"""The hub's HTTP routes: one file for each kind of request."""
