"""The tabs of the page: each draws its own columns and buttons; what they show is made elsewhere, without gradio."""
