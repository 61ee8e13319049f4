"""How good what a model generates is, and the densities of codes that it can be generated from."""
