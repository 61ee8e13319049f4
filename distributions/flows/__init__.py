"""Normalising flows, conditional on a context."""
