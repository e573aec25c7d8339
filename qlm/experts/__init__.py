"""Experts of a mixture: maps of a token to its update, and the routing of tokens to them."""
