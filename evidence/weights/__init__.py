"""Models with random weights: what they predict of new data, and their posterior where it is known exactly."""
