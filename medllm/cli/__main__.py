"""`python -m medllm.cli` is `medllm`."""

from medllm.cli import main

main()
