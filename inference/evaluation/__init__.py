"""What a trained pair is worth: log p(x), active units, and a verdict in words."""
