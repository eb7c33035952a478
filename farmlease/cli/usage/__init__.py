"""``farmlease usage``."""
