"""Pieces of a recurrent block for one token a row, each one compiled call instead of many tensor operations."""
