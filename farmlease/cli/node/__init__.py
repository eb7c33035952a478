"""``farmlease node``."""
