"""A model and its guide as data on disk, and back: by import paths, never by pickle."""
