"""``farmlease init``."""
