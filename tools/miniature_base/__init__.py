"""How the weights of the miniature's base are made; the package holds only the result."""
