"""Nets that read sequences, from their first step to their last or the other way."""
