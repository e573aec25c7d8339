"""The state-vector simulator measured against other simulators, the hardware and a circuit compiled by hand."""
