"""Draws of p(z | x) by chains of each datum's own, and learning from them."""
