"""Heads: from the last hidden state to the next token. One module each."""
