"""The stages: each reads folders and fills one folder, and none knows the Hub or another stage."""
