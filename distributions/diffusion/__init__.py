"""Noise that is added to data layer by layer: how much, what is known of it, and what a net says that it is."""
