"""Many runs: as cells that are kept, on one process or several, to equal time."""
