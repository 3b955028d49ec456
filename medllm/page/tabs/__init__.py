"""The tabs of the page: each draws its own columns and buttons; their contents are made elsewhere, without gradio."""
