"""What is maximised: bounds over log-weights, and the aids that change their gradient."""
