"""What the hub keeps: metadata in SQLite, content in files, and the rules that keep the two in step."""
