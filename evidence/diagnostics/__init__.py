"""q(z | x) and p(x | z) themselves held against simulated and real data."""
