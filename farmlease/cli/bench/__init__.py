"""``farmlease bench``."""
