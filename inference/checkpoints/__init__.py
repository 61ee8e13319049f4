"""A run's states on disk, whole or not at all."""
