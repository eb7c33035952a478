"""``farmlease doctor``."""
