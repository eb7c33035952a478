"""Whom commands call: this node's agent, or the farm's store."""
