"""Recurrences over many steps, forth and back: in few operations, and as one where a step is recorded."""
