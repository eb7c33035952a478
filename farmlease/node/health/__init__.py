"""What is told about this node."""
