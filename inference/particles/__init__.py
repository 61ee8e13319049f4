"""Draws of the guide under both programs, and their weights: one per datum and particle."""
