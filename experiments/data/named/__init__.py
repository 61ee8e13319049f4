"""Data sets that are read by their names, beside the digits and MNIST: pictures, sequences, tables."""
