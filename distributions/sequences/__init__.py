"""Distributions of whole sequences: chains of classes and of Gaussian states, over ragged lengths."""
