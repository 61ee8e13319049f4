"""A step recorded once as a flat graph, and replayed, compiled or launched instead of run by Pyro."""
