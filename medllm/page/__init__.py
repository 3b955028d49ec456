"""The page of the Space: loading, layout, review and display, apart from the columns and buttons in app.py."""
