"""The pages a person sees: repositories, cards, files, commits, tags. Plain HTML, no script."""
