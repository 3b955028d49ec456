"""Jobs: commands that run on this machine with the permission of the hub's owner, each with a log."""
