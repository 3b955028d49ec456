"""Jobs: commands that the hub's owner lets it run on this machine, each with its log."""
