"""Side-by-side timings of the engine against hand-written PyTorch and against peers: ``python -m benchmarks``."""
