"""Nets whose output for an input sees the inputs before it alone."""
