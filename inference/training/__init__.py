"""From a pair, an objective and data to a trained pair: check, SVI, fit, and what a run must keep."""
