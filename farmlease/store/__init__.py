"""The shared truth of a farm: the only room that knows Redis."""
