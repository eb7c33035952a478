"""What administrators do to a farm, for commands and console alike."""
