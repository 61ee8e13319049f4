"""A trained pair in use: arrays in, arrays of the same kind out, rows in order."""
