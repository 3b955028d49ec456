"""`python -m medllm.page`: the entry point of the Space's app.py; address and results come from the environment."""

import os

from medllm.page.serve import PageSettings, free_port, serve


def main() -> None:
    """Serve the page at the address that a Space expects."""
    on_space = "SPACE_ID" in os.environ
    port = int(os.environ.get("GRADIO_SERVER_PORT") or 7860) or free_port()
    serve(PageSettings(host="0.0.0.0" if on_space else "127.0.0.1", port=port))


if __name__ == "__main__":
    main()
