"""``farmlease lease``."""
