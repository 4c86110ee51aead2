"""What is in a version, what holds a run, and what was recalled."""
