"""``farmlease demo``."""
