"""Causal attention whose weights are inner products of features; its functions are exported by `classical_kernels`."""
