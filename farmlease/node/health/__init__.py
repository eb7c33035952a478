"""What this node reports about itself: health and metrics."""
