"""Talking to the store for the whole node."""
