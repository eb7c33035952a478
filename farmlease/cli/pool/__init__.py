"""``farmlease pool``."""
