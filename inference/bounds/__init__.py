"""What is maximised, as functions of log-weights: slopes, power means, and what a set of weights is worth."""
