"""What is maximised, as values: functions of log-weights with their derivatives, and what a set of weights is worth."""
