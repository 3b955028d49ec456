"""The page of the Space: what is read, laid out, reviewed and shown, apart from the columns and buttons in app.py."""
