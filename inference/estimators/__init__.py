"""How a bound is differentiated."""
