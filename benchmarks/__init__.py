"""Measurements: each script first asserts that what it times is right, then prints ratios taken in one process."""
