"""Circuits from and to other packages' formats."""
