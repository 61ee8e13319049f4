"""What scripts measure, and the records that they make of it."""
