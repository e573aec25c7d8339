"""Blocks: modules of shape (batch, seq, d_model) in and out, one a file, registered in ``qlm.registry``."""
