"""Priors p(z): modules without inputs, from which a model draws what it generates from."""
