"""Annealed importance sampling by Hamiltonian Monte Carlo, forward and in reverse."""
