"""For each room, what its public functions must refuse; tests/properties/test_refusals.py holds them to it."""
