"""`python -m medllm.page`: what the Space's app.py runs; address and results come from the environment."""

import os

from medllm.page.serve import Settings, serve


def main() -> None:
    """Serve the page where a Space expects it."""
    on_space = "SPACE_ID" in os.environ
    port = os.environ.get("GRADIO_SERVER_PORT") or ("7860" if on_space else "")
    serve(Settings(host="0.0.0.0" if on_space else "127.0.0.1", port=int(port) if port else None))


if __name__ == "__main__":
    main()
