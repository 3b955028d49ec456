"""Generation: one way to ask, two makers: the base and its adapters here, or a server that speaks OpenAI's protocol."""
