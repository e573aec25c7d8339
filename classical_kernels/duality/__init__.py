"""State spaces with one decay a head (Mamba-2): the recurrence and the masked matrix product that equals it."""
