"""Models as scripts train them, one a file, which bears the word for it."""
