"""What scripts measure beside log p(x)."""
