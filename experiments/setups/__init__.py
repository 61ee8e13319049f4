"""Models as scripts train them."""
