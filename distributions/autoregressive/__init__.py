"""Data whose dimensions are drawn one after the other, each given those before: exact densities without latents."""
