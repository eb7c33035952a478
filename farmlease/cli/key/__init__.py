"""``farmlease key``."""
