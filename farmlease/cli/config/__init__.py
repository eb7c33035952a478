"""``farmlease config``."""
