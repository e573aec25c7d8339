"""What the tensor-network adapters share: states as chains, networks of a circuit, plans, and what a run costs."""
