"""The Space: `python app.py` shows recorded results in the browser; what it does lives in medllm.page."""

from medllm.page.__main__ import main

if __name__ == "__main__":
    main()
